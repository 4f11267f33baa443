"""Host overhead fitted on the first half of a run's steps, and what it does to the errors of the other half."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from simtool.calibration.validation.step_table import errors_of
from simtool.errors import InputError
from simtool.simulator.host import HostOverhead
from simtool.validation import HostFit, Steps

F8 = NDArray[np.float64]
LEAST_STEPS = 20  # in each half


def fit_host(steps: Steps, host: HostOverhead, *, hidden: bool, between_s: F8) -> HostFit:
    """Fit base_s, per_request_s and gap_s on the first half of the steps, by non-negative least squares.

    hidden: scheduling is asynchronous, the host's work shows only as the gap. between_s [k]: idle before each step that
    no arrival explains. What is fitted is what a step took beyond its kernels: these are priced, and as measured where
    operators were timed. Where host_s was measured, base and per-request follow it and the gap takes the rest.
    Raises InputError for too few steps.
    """
    total = len(steps.measured_s)
    half = total // 2
    if half < LEAST_STEPS:
        raise InputError("--calibrate", f"needs {2 * LEAST_STEPS} steps, the run has {total}", "measure a longer run")
    first = np.arange(total) < half
    device_s = steps.priced_s - steps.priced_host_s  # of kernels alone: no host, no gap
    timed_s = sum((measured - priced for measured, priced in steps.families.values()), np.zeros(total))
    over_s = steps.measured_s + between_s - device_s - timed_s
    fitted = _fit(over_s[first], steps.host_s[first], steps.requests[first], host, hidden=hidden)
    after = replace(steps, priced_s=_priced(device_s, steps.requests, fitted, hidden=hidden))
    return HostFit(
        base_s=fitted.base_s,
        per_request_s=fitted.per_request_s,
        gap_s=fitted.gap_s,
        fitted_steps=half,
        half="the first half of the steps, errors on the second",
        before=errors_of("before", steps, ~first),
        after=errors_of("after", after, ~first),
    )


def _fit(over_s: F8, host_s: F8, requests: NDArray[np.int64], host: HostOverhead, *, hidden: bool) -> HostOverhead:
    columns = np.column_stack([np.ones(len(over_s)), requests])
    if np.isfinite(host_s).all():
        base_s, per_request_s = _nonnegative(columns, host_s)
        shown = 0.0 if hidden else base_s + per_request_s * requests
        gap_s = max(0.0, float(np.mean(over_s - shown)))
    elif hidden:
        base_s, per_request_s, gap_s = host.base_s, host.per_request_s, max(0.0, float(np.mean(over_s)))
    else:  # a constant of each step: base and gap cannot be told apart
        base_s, per_request_s = _nonnegative(columns, over_s)
        gap_s = 0.0
    return replace(host, base_s=base_s, per_request_s=per_request_s, gap_s=gap_s)


def _nonnegative(columns: F8, wanted: F8) -> tuple[float, float]:
    scale = np.abs(wanted).max() or 1.0  # seconds are small numbers
    found = nnls(columns, wanted / scale)[0] * scale
    return float(found[0]), float(found[1])


def _priced(device_s: F8, requests: NDArray[np.int64], host: HostOverhead, *, hidden: bool) -> F8:
    """The price with other host times, as the step tables put it together."""
    host_s = host.base_s + host.per_request_s * requests
    return np.maximum(device_s + host.gap_s, host_s) if hidden else device_s + host.gap_s + host_s
