"""The residual on top of a roofline law as a Gaussian process: best from few points, and it knows where it is unsure.

    log(measured / law) ~ GP(0, s^2 k(x, x') + n^2 [x = x']),  k a Matern 5/2 with a length scale for each log2 feature

(Rasmussen, Williams, "Gaussian Processes for Machine Learning", 2006: prediction 2.25-2.26, Matern 4.17.) In a
gap between points the mean fades to 0, so that the law alone prices it, and the deviation grows to s. Outside the box
of the points the value at its edge is held: the last efficiency.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SAME_POINT = 1e-6  # octaves
BLOCK_ROWS = 4096  # rows predicted at once: bounds memory at BLOCK_ROWS x points


def matern(left: Array, right: Array, scales: Array) -> Array:
    """Matern 5/2 correlation of rows of `left` [a, F] with rows of `right` [b, F] at length `scales` [F] -> [a, b]."""
    a, b = left / scales, right / scales
    square = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)[None, :] - 2.0 * (a @ b.T)
    distance = np.sqrt(5.0 * np.maximum(square, 0.0))
    return np.asarray((1.0 + distance + distance * distance / 3.0) * np.exp(-distance))


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianProcess:
    """points [N, F] (log2 features), target [N] (log residuals), scales [F], signal and noise deviations (log)."""

    points: Array
    target: Array
    scales: Array
    signal: float
    noise: float
    inverse: Array = field(init=False, repr=False, compare=False)  # of the points' covariance, [N, N]
    weights: Array = field(init=False, repr=False, compare=False)  # inverse @ target

    def __post_init__(self) -> None:
        covariance = self.signal**2 * matern(self.points, self.points, self.scales)
        covariance[np.diag_indices_from(covariance)] += self.noise**2
        inverse = np.linalg.inv(covariance)
        object.__setattr__(self, "inverse", 0.5 * (inverse + inverse.T))
        object.__setattr__(self, "weights", self.inverse @ self.target)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """features [b, F] -> (mean [b], deviation of a new measurement [b], noise included), both in log."""
        means, deviations = [np.zeros(0)], [np.zeros(0)]
        for start in range(0, len(features), BLOCK_ROWS):
            cross = self.signal**2 * matern(features[start : start + BLOCK_ROWS], self.points, self.scales)
            explained = np.einsum("bn,bn->b", cross @ self.inverse, cross)
            means.append(cross @ self.weights)
            deviations.append(np.sqrt(np.maximum(self.signal**2 - explained, 0.0) + self.noise**2))
        return np.concatenate(means), np.concatenate(deviations)

    def evaluate(self, features: Array) -> tuple[Array, Array, Array]:
        """features [b, F] -> (log residual, deviation, octaves outside the box of the points), each [b]."""
        lowest, highest = self.points.min(axis=0), self.points.max(axis=0)
        outside = np.maximum(lowest - features, features - highest).max(axis=1, initial=-np.inf)
        mean, deviation = self.predict(np.clip(features, lowest, highest))
        return mean, deviation, outside

    def holds(self, features: Array) -> bool:
        """Whether every row of `features` is one of the points."""
        return all(np.abs(self.points - row).max(axis=1).min() < SAME_POINT for row in features)

    def left_out(self) -> tuple[Array, Array]:
        """(error [N], deviation [N]) of each point predicted from all the others (Rasmussen, Williams 5.12)."""
        variance = 1.0 / np.diag(self.inverse)
        return self.weights * variance, np.sqrt(variance)
