"""Majority vote: the chance that the right answer has the most votes, ties drawn by lot. Exact, no sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, poisson

from simtool.errors import InputError

Floats = NDArray[np.float64]
_MOST_VOTES = 512


def majority_chance(right: float, wrong: Sequence[float], votes: int) -> float:
    """Chance that the right answer wins among so many independent votes.

    right: its chance in one vote. wrong: chances of the answers that wrong votes share; what is left up to 1 are wrong
    answers of which no two are alike. InputError: chances that are none, votes outside 1 to 512.
    """
    _check(votes)
    scattered = 1.0 - right - sum(wrong)
    if min(right, *wrong, 1.0) < 0.0 or scattered < -1e-9:
        raise InputError((right, *wrong), "chances of answers are 0 or more and add up to at most 1")
    count = np.arange(votes + 1)
    laws = [poisson.pmf(count, votes * chance) for chance in (right, *wrong)]
    singles = poisson.pmf(count, votes * max(scattered, 0.0))
    return _plurality(laws, singles, votes) / float(poisson.pmf(votes, votes))


def majority_at_k(right: int, wrong: Sequence[int], votes: int) -> float:
    """maj@k without bias: over all sets of k of the answers given, drawn without repetition, as pass@k is.

    right: how many of one question's answers were right; wrong: how many gave each wrong answer. InputError: fewer
    answers than votes.
    """
    _check(votes)
    answers = right + sum(wrong)
    if min(right, *wrong, 0) < 0 or not votes <= answers:
        raise InputError((right, *wrong), "counts are 0 or more, and there are as many answers as votes", f"{votes}")
    count, share = np.arange(votes + 1), votes / answers
    laws = [binom.pmf(count, number, share) for number in (right, *wrong)]
    none = (count == 0).astype(float)
    return _plurality(laws, none, votes) / float(binom.pmf(votes, answers, share))


def _check(votes: int) -> None:
    if not 1 <= votes <= _MOST_VOTES:
        raise InputError(votes, f"votes are from 1 to {_MOST_VOTES}", "more decide nothing new: compare chances")


def _plurality(laws: list[Floats], singles: Floats, votes: int) -> float:
    """P(the first count leads and all add up to `votes`), for independent counts; singles are answers of one vote each.

    A draw of t others is worth 1 / (1 + t) = ∫ u^t du: counts below the leader's weigh 1 and equal ones u, and
    Gauss-Legendre integrates the polynomial exactly. Where one vote leads all votes are unlike, and t is known.
    """
    others = laws[1:]
    total = float(laws[0][1]) * _rest([law[:2] for law in others], singles, votes - 1) / votes
    nodes, weights = np.polynomial.legendre.leggauss(len(others) // 2 + 1)
    for count in range(2, votes + 1):
        for u, share in zip((nodes + 1) / 2, weights / 2, strict=True):
            below = [np.append(law[:count], u * law[count]) for law in others]
            total += float(share * laws[0][count]) * _rest(below, singles, votes - count)
    return total


def _rest(laws: list[Floats], singles: Floats, votes: int) -> float:
    """Coefficient of so many votes in the product of the laws and the singles."""
    product = singles
    for law in laws[1:]:
        product = np.convolve(product, law)[: votes + 1]
    if not laws:
        return float(product[votes])
    last = laws[0][: votes + 1]
    return float(last @ product[votes - len(last) + 1 : votes + 1][::-1])
