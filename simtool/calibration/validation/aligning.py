"""Aligning: the same requests on both sides, in the same order, and the metrics of both."""

from __future__ import annotations

import math

import numpy as np

from simtool.calibration.validation.measurement import Measurement
from simtool.calibration.validation.predicting import Prediction
from simtool.errors import InputError
from simtool.metrics import flagged_percentiles
from simtool.validation import MetricRow
from simtool.workload import Workload

# read first; every other metric that both sides know follows
FIRST = tuple(f"{kind}_{name}_ms" for name in ("ttft", "tpot", "e2el") for kind in ("mean", "median", "p90", "p99"))
FIRST = (*FIRST, "output_throughput", "total_token_throughput", "request_throughput", "duration")
_NOT_COMPARED = ("completed", "failed", "total_input_tokens", "total_output_tokens", "num_steps", "slo_attainment")


def check_aligned(measurement: Measurement, workload: Workload) -> bool:
    """Whether the measurement has requests to align. Raises InputError that names the first request that differs."""
    result = measurement.result
    if result is None:
        return False
    if len(result.sent_s) != workload.num_requests:
        rule = f"measured {len(result.sent_s):,} requests, and the workload has {workload.num_requests:,}"
        raise InputError(measurement.source, rule, "give the workload that was measured")
    for name in ("input_tokens", "output_tokens"):
        measured, ours = getattr(result, name), getattr(workload, name)
        bad = np.flatnonzero(measured != ours)
        if len(bad):
            row = int(bad[0])
            what = name.replace("_", " ")
            rule = f"request {row} was measured with {measured[row]} {what}, the workload has {ours[row]}"
            raise InputError(measurement.source, rule, "give the workload that was measured, in its order")
    return True


def metric_rows(
    measurement: Measurement, prediction: Prediction, again: Measurement | None = None
) -> tuple[MetricRow, ...]:
    """Every metric that both sides know. Raises InputError where there is none."""
    few = flagged_percentiles(measurement.result) if measurement.result else ()
    shared = [
        key
        for key in (*FIRST, *sorted(prediction.metrics.keys() - set(FIRST)))
        if math.isfinite(measurement.metrics.get(key, math.nan))
        and math.isfinite(prediction.metrics.get(key, math.nan))
        and key not in _NOT_COMPARED
    ]
    if not shared:
        raise InputError(measurement.source, "states no metric that simtool predicts")
    return tuple(
        MetricRow(
            key=key,
            predicted=prediction.metrics[key],
            lower=prediction.intervals[key][0],
            upper=prediction.intervals[key][1],
            measured=measurement.metrics[key],
            noise=_noise(measurement, again, key),
            few=key in few,
        )
        for key in shared
    )


def _noise(one: Measurement, two: Measurement | None, key: str) -> float:
    """Relative difference of two measurements of a metric; NaN where it was measured once, or is 0."""
    first, second = one.metrics[key], two.metrics.get(key, math.nan) if two else math.nan
    return abs(second / first - 1.0) if first else math.nan


def check_again(one: Measurement, again: Measurement, workload: Workload) -> None:
    """Raise InputError unless `again` has the same requests, and executions one plan: else they show no noise."""
    check_aligned(again, workload)
    if one.execution is None or again.execution is None:
        return
    first, second = one.execution, again.execution
    kept = ("model", "cluster", "pools", "weight_dtype", "router")
    differing = [name for name in kept if getattr(first.plan, name) != getattr(second.plan, name)]
    differing += ["layers"] if first.layers != second.layers else []
    if not np.array_equal(first.workload.arrival_s, second.workload.arrival_s):
        differing.append("arrivals")
    if differing:
        rule = f"is no second run of {one.source}: {', '.join(differing)} differ"
        raise InputError(again.source, rule, "give a run of the same plan and workload")
