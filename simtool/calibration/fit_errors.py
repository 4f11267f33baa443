"""How wrong a fit is: relative errors, intervals whose coverage is judged on rows that did not set them, noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.fit_law import four_digits
from simtool.calibration.measurements import Measurements
from simtool.hardware.kernel_profile import INTERVAL, REGIMES, FitErrors

Array = NDArray[np.float64]
FEWEST_FOR_REGIME = 30  # rows in a regime for quantiles of its own


def relative(error: Array) -> tuple[float, float]:
    """Median and p95 of |predicted / measured - 1| from log(measured / predicted)."""
    if not len(error):
        return 0.0, 0.0
    size = np.abs(np.expm1(-error))
    return four_digits(float(np.median(size))), four_digits(float(np.quantile(size, 0.95)))


def intervals(error: Array, regime: NDArray[np.intp]) -> Array:
    """Quantiles of `error` (in deviations) by regime, [regimes, 2]; a regime with few rows takes those of all."""
    everything = np.quantile(error, INTERVAL)
    groups = [error[regime == index] for index in range(len(REGIMES))]
    ends = [np.quantile(group, INTERVAL) if len(group) >= FEWEST_FOR_REGIME else everything for group in groups]
    return np.round(np.stack(ends), 4)


def coverage(error: Array, regime: NDArray[np.intp], fold: NDArray[np.intp]) -> float:
    """Share of rows inside the intervals that the rows of the other folds give; 0 where there is only one row."""
    if len(np.unique(fold)) == 1:
        fold = np.arange(len(error)) % 2
    inside = np.zeros(len(error), dtype=np.bool_)
    for index in np.unique(fold) if len(error) > 1 else ():
        here = fold == index
        ends = intervals(error[~here], regime[~here])[regime[here]]
        inside[here] = (error[here] >= ends[:, 0]) & (error[here] <= ends[:, 1])
    return four_digits(float(inside.mean()))


def points_of(rows: Measurements, names: tuple[str, ...] | None = None) -> NDArray[np.intp]:
    """Which distinct point (or, by some of the dims, shape) each row is, [N]: repeats share a number."""
    columns = [rows.dims[name] for name in (names or tuple(sorted(rows.dims)))]
    _, index = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return np.asarray(index.reshape(-1), dtype=np.intp)


def repeat_noise(rows: Measurements) -> tuple[int, float, float]:
    """(repeats, median, p95) of |t / other t - 1| between measurements of the same point: the noise floor."""
    index = points_of(rows)
    order = np.argsort(index, kind="stable")
    logs, same = np.log(rows.seconds[order]), index[order][1:] == index[order][:-1]
    gaps = np.abs(np.diff(logs))[same]
    return len(gaps), *relative(gaps)


def errors_of(
    *, inside: Array, outside: Array, law_only: Array, covered: float, noise: tuple[int, float, float]
) -> FitErrors:
    """FitErrors of log errors: in sample, held out, and of the law alone on the held-out rows."""
    return FitErrors(
        in_sample_points=len(inside),
        in_sample_median=relative(inside)[0],
        in_sample_p95=relative(inside)[1],
        held_out_points=len(outside),
        held_out_median=relative(outside)[0],
        held_out_p95=relative(outside)[1],
        law_only_median=relative(law_only)[0],
        law_only_p95=relative(law_only)[1],
        coverage_90=covered,
        noise_points=noise[0],
        noise_median=noise[1],
        noise_p95=noise[2],
    )
