"""Closed forms of a batch of independent tokens: unique experts, and the load of the busiest expert or rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_WINDOW = 20.0  # standard deviations of the total that the transform tells apart
_CERTAIN = 1e-12
_VARIANCE_ROUNDS = 100


def expected_unique(inclusion: NDArray[np.float64], tokens: int) -> NDArray[np.float64]:
    """Experts that at least one of `tokens` independent tokens chooses, float64[...]; inclusion float64[..., experts].

    Sum of 1 - (1 - inclusion)^tokens; for uniform routing E (1 - (1 - k/E)^tokens). Exact for tokens of different
    sequences; tokens of one sequence share experts and need fewer.
    """
    return np.asarray(-np.expm1(tokens * np.log1p(-np.minimum(inclusion, 1 - 1e-16))).sum(axis=-1))


def expected_max_load(inclusion: NDArray[np.float64], tokens: int, ranks: int = 0) -> float:
    """Expected assignments of the busiest expert, or of the busiest of `ranks` blocks of experts, for one layer.

    inclusion: float64[experts], adds up to top_k. With top_k = 1 loads are multinomial, which is Poisson loads given
    their total, and the value is exact. For more it is an approximation: loads as independent binomials (of real size)
    given their total, with the means, and the variances of single experts, that tokens which choose without repetition
    give. With one class of tokens it is within 2% of sampling; classes shared by a rank's experts make the
    load of a rank vary more.
    """
    experts = len(inclusion)
    if tokens == 0 or ranks == 1:
        return float(tokens * np.rint(inclusion.sum()))
    variance = _free_variance(inclusion, tokens).reshape(ranks or experts, -1).sum(axis=1)
    mean = tokens * inclusion.reshape(ranks or experts, -1).sum(axis=1)
    total = int(np.rint(mean.sum()))
    most = min(total, int(np.ceil((mean + _WINDOW * np.sqrt(variance) + _WINDOW).max())))
    laws = _laws(mean, variance, most)
    return _largest_given_total(laws, total, float(np.sqrt(variance.sum())))


def _free_variance(inclusion: NDArray[np.float64], tokens: int) -> NDArray[np.float64]:
    """Variance of each load before the total is given, so that it is Binomial(tokens, inclusion)'s once it is.

    A load's variance given the total is v (1 - v / sum v); where that cannot be as large as wanted, v is the mean.
    """
    wanted = inclusion * (1.0 - np.minimum(inclusion, 1.0))
    found = inclusion.copy()
    for _ in range(_VARIANCE_ROUNDS):
        share = found / max(found.sum(), 1e-300)
        found = np.minimum(wanted / np.maximum(1.0 - share, 1e-9), inclusion)
    return tokens * found


def _laws(mean: NDArray[np.float64], variance: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Binomial laws of real size with these moments, Poisson where they are equal: float64[loads, most + 1]."""
    count = np.arange(most)
    hit = np.clip(1.0 - variance / np.maximum(mean, 1e-300), 0.0, 1.0 - 1e-12)[:, None]
    size = mean[:, None] / np.maximum(hit, 1e-12)
    left = np.where(hit > 1e-9, (size - count) * hit, mean[:, None])  # n p - x p, which is the mean as p goes to 0
    left = np.where((hit > 1e-9) & (count > size - 1e-6), 0.0, left)  # a size that is whole, but for rounding
    ratio = np.maximum(left, 1e-300) / ((1.0 - hit) * (count + 1))
    logs = np.concatenate((np.zeros((len(mean), 1)), np.cumsum(np.log(ratio), axis=1)), axis=1)
    weight = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def _largest_given_total(laws: NDArray[np.float64], total: int, deviation: float) -> float:
    """Expected largest of independent loads given their total: P(all <= m | total) is a coefficient of a product.

    The product of the loads' polynomials is taken at roots of unity, enough of them for the total's own spread. Loads
    that never come near the largest are multiplied once.
    """
    points = 1 << (max(laws.shape[1], int(_WINDOW * deviation)) + 1).bit_length()
    below = np.minimum(np.cumsum(laws, axis=1), 1.0)
    likely = np.prod(below, axis=0) > _CERTAIN
    first = max(int(likely.argmax()), -(-total // len(laws)))
    small = below[:, first] > 1.0 - 1e-15
    rest = np.prod(np.fft.rfft(laws[small], n=points, axis=1), axis=0)
    large = laws[~small]
    whole = _coefficient(rest * np.prod(np.fft.rfft(large, n=points, axis=1), axis=0), total)
    transform = np.fft.rfft(large[:, :first], n=points, axis=1) if first else 0.0
    expected, turn = float(first), np.exp(-2j * np.pi * np.arange(points // 2 + 1) / points)
    for most in range(first, laws.shape[1]):
        transform = transform + large[:, most, None] * turn**most
        chance = _coefficient(rest * np.prod(transform, axis=0), total) / whole
        expected += 1.0 - min(max(chance, 0.0), 1.0)
        if chance > 1.0 - _CERTAIN:
            break
    return expected


def _coefficient(transform: NDArray[np.complex128], total: int) -> float:
    """P(sum = total) of a real law's transform; sums are known up to multiples of the points, which are too rare."""
    points = 2 * (len(transform) - 1)
    return float(np.fft.irfft(transform, n=points)[total % points])
