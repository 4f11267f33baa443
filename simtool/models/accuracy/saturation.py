"""Saturation: success against samples that are alike, and where one more is not worth it (TTSPM)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simtool.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """F(N) = ceiling · (1 − (1 − rate)^N), N parallel samples or sequential rounds: the same form (TTSPM).

    ceiling: success that no number of samples passes, (0, 1]. rate: chance that one sample gets there, (0, 1).
    """

    ceiling: float
    rate: float

    def __post_init__(self) -> None:
        if not (0.0 < self.ceiling <= 1.0 and 0.0 < self.rate < 1.0):
            raise InputError((self.ceiling, self.rate), "a ceiling is in (0, 1], a rate in (0, 1)")

    def success(self, samples: float) -> float:
        """F(N)."""
        return -self.ceiling * math.expm1(samples * math.log1p(-self.rate))

    def gain(self, samples: float) -> float:
        """F(N + 1) − F(N)."""
        return self.ceiling * self.rate * math.exp(samples * math.log1p(-self.rate))

    def saturated_at(self, least_gain: float) -> int:
        """N* = ⌈ln(ε / (ceiling · rate)) / ln(1 − rate)⌉, not below 0: the fewest samples after which one more gains
        at most ε.
        """
        if not least_gain > 0.0:
            raise InputError(least_gain, "a gain worth having is above 0")
        found = math.log(least_gain / (self.ceiling * self.rate)) / math.log1p(-self.rate)
        return max(0, math.ceil(found))
