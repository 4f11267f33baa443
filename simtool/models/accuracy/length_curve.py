"""LengthCurve: accuracy against the tokens that an answer is held to (budget forcing), as measured or declared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simtool.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthCurve:
    """Points (tokens, accuracy), tokens rising. Between them a line over log tokens; beyond them nothing is known.

    Accuracy may fall with length: forcing on past what a model was trained for does that.
    """

    tokens: tuple[float, ...]
    accuracy: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.accuracy) or len(self.tokens) < 2:
            raise InputError(self.tokens, "a curve has two points or more, tokens and accuracy of each")
        if self.tokens[0] <= 0 or (np.diff(self.tokens) <= 0).any():
            raise InputError(self.tokens, "tokens are above 0 and rise")
        if not all(0.0 <= value <= 1.0 for value in self.accuracy):
            raise InputError(self.accuracy, "accuracy is between 0 and 1")

    def at(self, tokens: float) -> float:
        """Accuracy of answers held to so many tokens. InputError: outside the points."""
        if not self.tokens[0] <= tokens <= self.tokens[-1]:
            raise InputError(tokens, "outside the curve", f"{self.tokens[0]:g} to {self.tokens[-1]:g} tokens")
        return float(np.interp(np.log(tokens), np.log(self.tokens), self.accuracy))

    def best_length(self) -> float:
        """The fewest tokens with the highest accuracy: on a curve of lines, one of its points."""
        return self.tokens[int(np.argmax(self.accuracy))]
