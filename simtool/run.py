"""Run: a plan simulated under a workload, with all that is said about it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from simtool.metrics import Result, Slo, serving_metrics
from simtool.plan import Plan
from simtool.simulator.run import simulate
from simtool.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """metrics: vLLM's keys. prices: dollars a device-hour in place of the catalogue's. wall_s: seconds it took."""

    plan: Plan
    workload: Workload
    slo: Slo
    result: Result
    metrics: dict[str, float]
    wall_s: float
    prices: Mapping[str, float] = field(default_factory=dict)


def run_plan(
    plan: Plan,
    workload: Workload,
    slo: Slo,
    *,
    exact_steps: bool = False,
    prices: Mapping[str, float] | None = None,
) -> Run:
    """Simulate `plan` under `workload` and take its metrics. Raises InputError and InfeasibleError."""
    started = time.monotonic()
    result = simulate(plan, workload, exact_steps=exact_steps)
    metrics = serving_metrics(result, slo)
    wall_s = time.monotonic() - started
    return Run(
        plan=plan, workload=workload, slo=slo, result=result, metrics=metrics, wall_s=wall_s, prices=prices or {}
    )
