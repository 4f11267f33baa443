"""Sweep: one plan under several loads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simtool.errors import InputError
from simtool.metrics import Slo, serving_metrics
from simtool.plan import Plan
from simtool.run import engines_of
from simtool.simulator.run import simulate_engines
from simtool.traces import mean_rate, scale_to_rate
from simtool.workload import Workload

RATE_AXIS, CONCURRENCY_AXIS = "requests/s", "requests in flight"
_FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """The metrics (vLLM's keys) at one value of what is swept."""

    value: float
    metrics: dict[str, float]


def sweep_load(plan: Plan, workload: Workload, slo: Slo, values: Sequence[float]) -> list[SweepPoint]:
    """The plan at each load: requests in flight where the workload is a closed loop, requests a second elsewhere."""
    points, engines = [], engines_of(plan, workload)
    for value in values:
        metrics = serving_metrics(simulate_engines(engines, at_load(workload, value), router=plan.router), slo)
        points.append(SweepPoint(value=value, metrics=metrics))
    return points


def at_load(workload: Workload, value: float) -> Workload:
    """The same requests at another load (see sweep_load)."""
    if workload.max_concurrency:
        if value < 1 or value != int(value):
            raise InputError(value, "a concurrency is a whole number, at least 1")
        return replace(workload, max_concurrency=int(value))
    return scale_to_rate(workload, value)


def load_now(workload: Workload) -> tuple[float, str]:
    """The workload's load and its unit; NaN where all requests come at once and no limit holds them."""
    if workload.max_concurrency:
        return float(workload.max_concurrency), CONCURRENCY_AXIS
    rate = mean_rate(workload)
    return (rate if math.isfinite(rate) else math.nan), RATE_AXIS


def loads_around(workload: Workload) -> list[float]:
    """Loads from a quarter to twice the workload's own; empty where it has none."""
    now, axis = load_now(workload)
    if math.isnan(now):
        return []
    loads = [now * factor for factor in _FACTORS]
    return sorted({float(max(1, round(load))) for load in loads}) if axis == CONCURRENCY_AXIS else loads


def first_part(workload: Workload, limit: int) -> Workload:
    """At most the first `limit` requests, so that a sweep over a long trace stays quick."""
    from simtool.traces import first_requests

    shorter = first_requests(workload, limit)
    return replace(shorter, warmup_requests=min(shorter.warmup_requests, int(np.ceil(limit / 10))))
