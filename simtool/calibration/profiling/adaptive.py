"""Adaptive: the next point where the fit is least certain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.points import KernelPoint, TimedPoint
from simtool.calibration.profiling.design import log_features, work_of

Array = NDArray[np.float64]

MOST_CANDIDATES = 200
SEED = 0


def can_adapt() -> bool:
    """Whether the library that fits the process is installed."""
    from importlib.util import find_spec

    return find_spec("scipy") is not None


def most_uncertain(candidates: Sequence[KernelPoint], measured: Sequence[TimedPoint]) -> KernelPoint:
    """Of `candidates`, that whose time a Gaussian process over `measured` (one family and dtype) knows least.

    The process is over the log time left by a plain roofline through the fastest points. Needs scipy.
    """
    from simtool.calibration.process_fit import fit_process

    some = list(candidates[:MOST_CANDIDATES])
    points = [row.point for row in measured]
    left = np.log([row.timing.seconds for row in measured]) - np.log(_roofline_seconds(points, measured))
    process = fit_process(log_features(points), left - left.mean(), seed=SEED)
    _, deviation = process.predict(log_features(some))
    return some[int(np.argmax(deviation))]


def _roofline_seconds(points: Sequence[KernelPoint], measured: Sequence[TimedPoint]) -> Array:
    """Launch, compute and memory times added, at the best rates and the least time that were measured."""
    seconds = np.array([row.timing.seconds for row in measured])
    work = work_of(points)
    flops, moved = np.broadcast_arrays(work.flops, work.hbm_bytes)
    compute = flops / max(float(np.max(flops / seconds)), 1.0)
    return np.asarray(seconds.min() + compute + moved / max(float(np.max(moved / seconds)), 1.0))
