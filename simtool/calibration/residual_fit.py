"""Fit a SeparableResidual to scattered log residuals by alternating ridge regressions. Deterministic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.fitted_residual import FACTOR_SCALE, SeparableResidual

Array = NDArray[np.float64]

OUTLIER = 0.05  # log error beyond which a row pulls with constant force: the tables' noise has heavy tails
PLAIN_SWEEPS = 2  # of plain least squares, before the reweighting starts


def hat_weights(column: Array, knots: Array) -> tuple[NDArray[np.intp], Array]:
    """Left knot index [N] and share of the right knot [N] of piecewise-linear interpolation."""
    if len(knots) == 1:
        return np.zeros(len(column), dtype=np.intp), np.zeros(len(column))
    left = np.clip(np.searchsorted(knots, column) - 1, 0, len(knots) - 2)
    share = np.clip((column - knots[left]) / (knots[left + 1] - knots[left]), 0.0, 1.0)
    return left, share


def choose_knots(column: Array, most: int) -> Array:
    """At most `most` knots: the distinct values, or those nearest to equal steps in log2 when there are more."""
    values = np.unique(np.round(column, 6))
    if len(values) <= most:
        return values
    even = np.linspace(values[0], values[-1], most)
    quantiles = np.quantile(column, np.linspace(0.0, 1.0, most))
    targets = 0.5 * (even + quantiles)  # half by range, half by where the data are
    nearest = values[np.abs(values[None, :] - targets[:, None]).argmin(axis=1)]
    return np.unique(np.concatenate([nearest, values[:1], values[-1:]]))


def fit_separable(
    features: Array, target: Array, *, knots: tuple[Array, ...], rank: int, ridge: float, sweeps: int, seed: int
) -> SeparableResidual:
    """features [N, F], target [N] -> residual. ridge: weight of a unit coefficient and of a unit step between knots.

    Iteratively reweighted: an error beyond OUTLIER counts by its size, not its square (Huber, 1964).
    """
    rng = np.random.default_rng(seed)
    hats = [hat_weights(c, k) for c, k in zip(features.T, knots, strict=True)]
    factors = [1.0 + 0.3 * rng.standard_normal((len(k), rank)) for k in knots]
    values = [_spread(hat, factor) for hat, factor in zip(hats, factors, strict=True)]
    weights = np.ones(len(target))
    for sweep in range(sweeps):
        if sweep >= PLAIN_SWEEPS:
            weights = OUTLIER / np.maximum(np.abs(target - np.prod(values, axis=0).sum(axis=1)), OUTLIER)
        for d in range(len(knots)):
            others = np.ones((len(target), rank))
            for e, value in enumerate(values):
                if e != d:
                    others *= value
            factors[d] = _solve_factor(hats[d], others, target, weights, len(knots[d]), ridge)
            values[d] = _spread(hats[d], factors[d])
        _balance(factors)
        values = [_spread(hat, factor) for hat, factor in zip(hats, factors, strict=True)]
    limit = float(np.abs(target).max(initial=0.0))
    return SeparableResidual(knots=knots, factors=tuple(factors), limit=limit)


def _spread(hat: tuple[NDArray[np.intp], Array], factor: Array) -> Array:
    """Factor [L, R] at the samples, [N, R]."""
    left, share = hat
    right = np.minimum(left + 1, len(factor) - 1)
    return np.asarray((1.0 - share)[:, None] * factor[left] + share[:, None] * factor[right])


def _solve_factor(
    hat: tuple[NDArray[np.intp], Array], others: Array, target: Array, weights: Array, length: int, ridge: float
) -> Array:
    """One weighted ridge regression: coefficients [L, R] of the hat functions times `others` [N, R]."""
    left, share = hat
    root = np.sqrt(weights)
    others, target = root[:, None] * others, root * target
    rank = others.shape[1]
    normal = np.zeros((length, length, rank, rank))
    right_hand = np.zeros((length, rank))
    order = np.argsort(left, kind="stable")
    starts = np.searchsorted(left[order], np.arange(length + 1))
    for knot in range(length):
        rows = order[starts[knot] : starts[knot + 1]]
        if not len(rows):
            continue
        low, high = (1.0 - share[rows])[:, None] * others[rows], share[rows][:, None] * others[rows]
        normal[knot, knot] += low.T @ low
        right_hand[knot] += low.T @ target[rows]
        if knot + 1 < length and share[rows].any():
            cross = low.T @ high
            normal[knot, knot + 1] += cross
            normal[knot + 1, knot] += cross.T
            normal[knot + 1, knot + 1] += high.T @ high
            right_hand[knot + 1] += high.T @ target[rows]
    matrix = normal.transpose(0, 2, 1, 3).reshape(length * rank, length * rank)
    matrix += ridge * np.kron(_roughness(length) + 0.1 * np.eye(length), np.eye(rank))
    return np.asarray(np.linalg.solve(matrix, right_hand.reshape(-1)).reshape(length, rank))


def _roughness(length: int) -> Array:
    """Quadratic form of squared steps between neighbouring knots, [L, L]."""
    steps = np.diff(np.eye(length), axis=0)
    return np.asarray(steps.T @ steps)


def _balance(factors: list[Array]) -> None:
    """Share each term's magnitude evenly among its factors (in place), so that the ridge treats them alike."""
    norms = np.stack([np.sqrt(np.mean(f * f, axis=0)) + 1e-12 for f in factors])
    scale = np.exp(np.log(norms).mean(axis=0)) / norms
    for d, factor in enumerate(factors):
        factors[d] = factor * scale[d]


def rounded_residual(residual: SeparableResidual) -> SeparableResidual:
    """The residual rounded as it is stored: knots to four decimals, factors to multiples of FACTOR_SCALE."""
    return SeparableResidual(
        knots=tuple(np.round(knots, 4) for knots in residual.knots),
        factors=tuple(np.round(factor / FACTOR_SCALE) * FACTOR_SCALE for factor in residual.factors),
        limit=round(residual.limit, 3),
    )
