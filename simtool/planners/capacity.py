"""Capacity: the highest request rate at which a plan meets its SLO. (`simtool.sweep` shows a plan under many loads.)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simtool.errors import InfeasibleError, InputError
from simtool.metrics import Slo
from simtool.plan import Plan
from simtool.planners.backend import Backend
from simtool.planners.evaluate import Run, limited, meets, simulate_plan
from simtool.planners.relax import nearest_limits
from simtool.simulator.engine import EngineSpec
from simtool.traces import scale_to_rate
from simtool.workload import Workload

_CLOSE = 0.01  # relative width of the interval that a capacity search proves
_MOST_DOUBLINGS = 12  # a finite trace 4096 times as dense is a burst: denser changes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load that was simulated, in requests/s, and what came of it."""

    load: float
    metrics: dict[str, float]
    attainment: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Highest request rate that meets the SLO: it was met at `met_rate` and missed at `missed_rate` (inf: never).

    Attainment falls with load but for noise of single runs; the interval is what was simulated, not a fit.
    """

    met_rate: float
    missed_rate: float
    points: tuple[Point, ...]


def engines_of(plan: Plan, backend: Backend) -> list[EngineSpec]:
    """The engine of each pool of a plan."""
    return [backend.compile(plan, pool) for pool in plan.pools]


def at_rate(workload: Workload, rate: float) -> Workload:
    """The workload with its arrivals stretched to `rate` requests/s on average. Raises InputError without arrivals."""
    if workload.max_concurrency or not workload.num_requests or workload.arrival_s[-1] <= workload.arrival_s[0]:
        raise InputError("workload", "has no arrival times to scale", "give a trace or --request-rate")
    return scale_to_rate(workload, rate)


def _point(load: float, run: Run) -> Point:
    return Point(load=load, metrics=dict(run.metrics), attainment=run.attainment)


def capacity(plan: Plan, workload: Workload, slo: Slo, *, backend: Backend, close: float = _CLOSE) -> Capacity:
    """The highest request rate at which a plan meets the SLO, by doubling and bisection to a relative width of `close`.

    Raises InputError without an SLO, InfeasibleError when even a nearly idle cluster misses it.
    """
    if not limited(slo):
        raise InputError("slo", "capacity needs a limit", "for example ttft:1000,tpot:50")
    specs = engines_of(plan, backend)
    points: list[Point] = []

    def met(rate: float) -> bool:
        run = simulate_plan(backend, plan, specs, at_rate(workload, rate), slo)
        points.append(_point(rate, run))
        return meets(run, slo)

    low, high = _bracket(met, workload)
    if low == 0.0:
        run = simulate_plan(backend, plan, specs, at_rate(workload, high), slo)
        factor, needed = nearest_limits(run.result, slo)
        limits = ",".join(f"{name}:{value * 1e3:.4g}" for name, value in needed.items())
        detail = f"missed by a factor of {factor:.3g} even at {high:.3g} requests/s"
        raise InfeasibleError("slo", detail, f"--slo {limits} is met there")
    while np.isfinite(high) and high - low > close * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if met(middle) else (low, middle)
    return Capacity(met_rate=low, missed_rate=high, points=tuple(sorted(points, key=lambda point: point.load)))


def _bracket(met: Callable[[float], bool], workload: Workload) -> tuple[float, float]:
    """(a rate that is met or 0, a rate that is missed or inf), a factor of two apart."""
    span_s = max(float(workload.arrival_s[-1] - workload.arrival_s[0]), 1e-9)
    rate = (workload.num_requests - 1) / span_s
    if met(rate):
        for _ in range(_MOST_DOUBLINGS):
            if not met(2.0 * rate):
                return rate, 2.0 * rate
            rate *= 2.0
        return rate, float("inf")
    for _ in range(_MOST_DOUBLINGS):
        if met(0.5 * rate):
            return 0.5 * rate, rate
        rate *= 0.5
    return 0.0, rate
