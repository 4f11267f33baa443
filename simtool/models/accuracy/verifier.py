"""Verifier: checks that pass right and wrong answers at given rates, and the best of N answers by passed checks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, binom

from simtool.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Checks of one answer agree more than chance: its own pass rate is a draw of a Beta with the mean rate.

    true_positive, false_positive: mean chance that a right and a wrong answer pass one check, in (0, 1). agreement:
    correlation of two checks of one answer, [0, 1); 0 is independent checks, of which enough tell right from wrong.
    """

    true_positive: float
    false_positive: float
    right_agreement: float = 0.0
    wrong_agreement: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 < self.true_positive < 1.0 and 0.0 < self.false_positive < 1.0):
            raise InputError((self.true_positive, self.false_positive), "rates of a verifier are between 0 and 1")
        if not (0.0 <= self.right_agreement < 1.0 and 0.0 <= self.wrong_agreement < 1.0):
            raise InputError((self.right_agreement, self.wrong_agreement), "agreement is in [0, 1)")

    def passed(self, checks: int) -> tuple[Floats, Floats]:
        """Law of the number of checks passed, of a right and of a wrong answer: float64[checks + 1] each."""
        return (
            _passed(checks, self.true_positive, self.right_agreement),
            _passed(checks, self.false_positive, self.wrong_agreement),
        )


def best_of(rates: Floats, answers: int, verifier: Verifier, checks: int) -> Floats:
    """Chance that the best of N answers by passed checks (ties by lot) is right, for each question's solve rate.

    The best of N has s checks with chance F(s)^N − F(s−1)^N, and an answer with s checks is right with chance
    p a(s) / (p a(s) + (1 − p) b(s)). InputError: no answer, or a rate outside [0, 1].
    """
    if answers < 1 or checks < 0:
        raise InputError((answers, checks), "answers are 1 or more, checks 0 or more")
    if not ((rates >= 0.0) & (rates <= 1.0)).all():
        raise InputError("solve rates", "are between 0 and 1")
    right, wrong = verifier.passed(checks)
    good = rates[..., None] * right
    law = good + (1.0 - rates[..., None]) * wrong
    below = np.minimum(np.cumsum(law, axis=-1), 1.0)
    best = np.diff(below**answers, axis=-1, prepend=0.0)
    share = np.divide(good, law, out=np.zeros_like(law), where=law > 0.0)
    return np.asarray((best * share).sum(axis=-1))


def _passed(checks: int, rate: float, agreement: float) -> Floats:
    count = np.arange(checks + 1)
    if agreement == 0.0:
        return np.asarray(binom.pmf(count, checks, rate))
    size = 1.0 / agreement - 1.0  # α + β of a Beta whose draws correlate so
    return np.asarray(betabinom.pmf(count, checks, rate * size, (1.0 - rate) * size))
