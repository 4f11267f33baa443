"""The residual on top of a roofline law: a short sum of separable functions of the log2 features.

    log(measured / law) = sum_r prod_d f_rd(x_d),   f_rd piecewise linear between knots

(Beylkin, Mohlenkamp, "Algorithms for numerical analysis in high dimensions", 2005.) It keeps sharp one-dimensional
structure, such as the tile steps of a GEMM in m, that a stationary Gaussian process of the same size blurs. Outside
the knots the edge value is held: the last efficiency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Octaves outside the calibrated box beyond which a price counts as extrapolated. A choice, not a measurement: two
# octaves is the typical knot spacing of the imported tables.
TOLERATED_OCTAVES = 1.0
FACTOR_SCALE = 8e-3  # factors are stored as integers of this unit
BLOCK = 2_048  # rows evaluated at a time, so that the terms of a block stay in the core's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparableResidual:
    """knots: one increasing array [L_d] a feature (log2). factors: one array [L_d, R] a feature.

    limit: largest |residual| seen in calibration; the sum is clipped to it.
    """

    knots: tuple[Array, ...]
    factors: tuple[Array, ...]
    limit: float

    def evaluate(self, features: Array) -> tuple[Array, Array, Array]:
        """features [b, F] -> (log residual, deviation: 1, octaves outside the calibrated box), each [b]."""
        value, outside = np.empty(len(features)), np.zeros(len(features))
        for start in range(0, len(features), BLOCK):
            block = slice(start, start + BLOCK)
            value[block] = self._sum_of_products(features[block])
        for column, knots in zip(features.T, self.knots, strict=True):
            outside = np.maximum(outside, np.maximum(knots[0] - column, column - knots[-1]))
        return np.clip(value, -self.limit, self.limit), np.ones(len(features)), outside

    def _sum_of_products(self, features: Array) -> Array:
        product = np.ones((len(features), self.factors[0].shape[1]))
        for column, knots, factor in zip(features.T, self.knots, self.factors, strict=True):
            product *= _interpolate(column, knots, factor)
        return np.asarray(product.sum(axis=1))


def _interpolate(column: Array, knots: Array, factor: Array) -> Array:
    """Piecewise linear in `column` [b] between `knots` [L], edges held; factor [L, R] -> [b, R]."""
    if len(knots) == 1:
        return np.broadcast_to(factor, (len(column), factor.shape[1]))
    left = np.clip(np.searchsorted(knots, column), 1, len(knots) - 1) - 1
    share = np.clip((column - knots[left]) / (knots[left + 1] - knots[left]), 0.0, 1.0)[:, None]
    values = np.diff(factor, axis=0)[left]
    values *= share
    values += factor[left]
    return np.asarray(values)
