"""Fit a RooflineLaw to measured seconds by robust least squares on the log error. Deterministic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.roofline import RooflineLaw, Work

Array = NDArray[np.float64]


def fit_law(work: Work, seconds: Array, peak: float, bandwidth: float, rows: NDArray[np.intp]) -> RooflineLaw:
    """Robust least squares on log error over `rows`. Efficiencies stay within (0.02, 1]: what a cache serves faster
    than memory is the residual's to say.
    """
    from scipy.optimize import least_squares

    def part(column: Array) -> Array:
        return np.asarray(np.broadcast_to(column, seconds.shape)[rows])

    some = Work(
        flops=part(work.flops),
        hbm_bytes=part(work.hbm_bytes),
        items=part(work.items),
        serial_bytes=part(work.serial_bytes),
    )
    has_items, has_serial = bool(some.items.any()), bool(some.serial_bytes.any())

    def law(p: Array) -> RooflineLaw:
        return _law_of(p, has_items, has_serial)

    target = np.log(seconds[rows])
    lowest = np.log([5e-7, 0.02, 0.02, 1.0, 1e-12, 0.02])
    highest = np.log([5e-4, 1.0, 1.0, 8.0, 1e-5, 2.0])
    start = np.log([max(float(seconds[rows].min()), 6e-7), 0.7, 0.75, 1.5, 1e-9, 0.5])

    def log_error(p: Array) -> Array:
        return np.asarray(np.log(law(p).seconds(some, peak, bandwidth)) - target)

    result = least_squares(
        log_error,
        np.clip(start, lowest + 1e-6, highest - 1e-6),
        bounds=(lowest, highest),
        loss="soft_l1",
        f_scale=0.1,
    )
    return law(result.x)


def _law_of(parameters: Array, has_items: bool, has_serial: bool) -> RooflineLaw:
    """The law with the given log parameters; terms that the family does not have are left at nothing."""
    launch, compute, memory, exponent, item, serial = (float(v) for v in np.exp(parameters))
    return RooflineLaw(
        launch_s=launch,
        compute_efficiency=compute,
        memory_efficiency=memory,
        exponent=exponent,
        item_s=item if has_items else 0.0,
        serial_efficiency=serial if has_serial else 1.0,
    )


def rounded_law(law: RooflineLaw) -> RooflineLaw:
    """The law with four significant digits, as it is stored."""
    return RooflineLaw(
        launch_s=four_digits(law.launch_s),
        compute_efficiency=four_digits(law.compute_efficiency),
        memory_efficiency=four_digits(law.memory_efficiency),
        exponent=max(1.0, four_digits(law.exponent)),
        item_s=four_digits(law.item_s),
        serial_efficiency=four_digits(law.serial_efficiency),
    )


def four_digits(value: float) -> float:
    """`value` with four significant digits."""
    return float(f"{value:.4g}")
