"""Fit a GaussianProcess: length scales, signal and noise by maximum marginal likelihood. Deterministic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.fitted_process import GaussianProcess

Array = NDArray[np.float64]

# Bounds in log2 octaves of a feature, and in log seconds. A scale below half an octave would explain noise, one of a
# hundred means that the feature does not matter. Weak log-normal priors around the starts keep few points from running
# to a bound: one standard deviation is a factor of e.
SCALE_START, SCALE_BOUNDS = 3.0, (0.4, 100.0)
SIGNAL_START, SIGNAL_BOUNDS = 0.2, (0.01, 3.0)
NOISE_START, NOISE_BOUNDS = 0.03, (0.002, 0.5)
MOST_FOR_SCALES = 400  # points that hyperparameters are fitted to (the cost is cubic); all points make the prediction


def fit_process(features: Array, target: Array, *, seed: int) -> GaussianProcess:
    """features [N, F] (log2), target [N] (log residuals) -> process on all N points. Needs scipy."""
    from scipy.optimize import minimize

    chosen = np.sort(np.random.default_rng(seed).permutation(len(target))[:MOST_FOR_SCALES])
    few, values, width = features[chosen], target[chosen], features.shape[1]
    start = np.log(np.array([SCALE_START] * width + [SIGNAL_START, NOISE_START]))
    bounds = [tuple(np.log(b)) for b in [SCALE_BOUNDS] * width + [SIGNAL_BOUNDS, NOISE_BOUNDS]]
    found = minimize(_objective(few, values, start), start, jac=True, method="L-BFGS-B", bounds=bounds)
    best = np.exp(found.x)
    return GaussianProcess(
        points=features, target=target, scales=best[:width], signal=float(best[-2]), noise=float(best[-1])
    )


def _objective(points: Array, target: Array, prior: Array) -> Callable[[Array], tuple[float, Array]]:
    """Negative log marginal likelihood and prior, with the gradient, of the log parameters (scales, signal, noise)."""
    gaps = [np.square(column[:, None] - column[None, :]) for column in points.T]
    eye = np.eye(len(target))

    def objective(parameters: Array) -> tuple[float, Array]:
        *scales, signal, noise = np.exp(parameters)
        square = sum((gap / scale**2 for gap, scale in zip(gaps, scales, strict=True)), start=np.zeros_like(eye))
        root = np.sqrt(5.0 * square)
        decay = np.exp(-root)
        smooth = signal**2 * (1.0 + root + root * root / 3.0) * decay
        factor = np.linalg.cholesky(smooth + noise**2 * eye)
        inverse = np.linalg.inv(factor)
        inverse = inverse.T @ inverse
        weights = inverse @ target
        slope = np.outer(weights, weights) - inverse
        shape = signal**2 * (5.0 / 3.0) * (1.0 + root) * decay  # d smooth / d log scale = shape * gap / scale^2
        gradient = [-0.5 * np.sum(slope * shape * gap) / scale**2 for gap, scale in zip(gaps, scales, strict=True)]
        gradient += [-np.sum(slope * smooth), -np.sum(np.diag(slope)) * noise**2]
        pull = parameters - prior
        value = 0.5 * target @ weights + np.sum(np.log(np.diag(factor))) + 0.5 * pull @ pull
        return float(value), np.asarray(gradient) + pull

    return objective
