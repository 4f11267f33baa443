"""Evaluate: one plan's optimistic outcome (proven) and its simulated outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simtool.metrics import Result, Slo
from simtool.plan import Plan
from simtool.planners.backend import Backend
from simtool.planners.bound import work_bound
from simtool.planners.demand import Demand
from simtool.planners.floor import StepFloor, step_floor
from simtool.planners.latency import LatencyFloor, latency_floor
from simtool.planners.objective import Outcome, objective_value, outcome_of
from simtool.planners.question import Candidate, Objective
from simtool.simulator.engine import EngineSpec
from simtool.summaries import overload_wait_s
from simtool.workload import Workload

_ROUNDING = 1e-9  # bounds give way by so much, that rounding never makes one false


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """The floors of one engine: of its steps and of each request's latency."""

    step: StepFloor
    latency: LatencyFloor


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A simulated plan."""

    metrics: Mapping[str, float]
    attainment: float
    outcome: Outcome
    result: Result


def floors_of(spec: EngineSpec, demand: Demand, *, prefix_caching: bool) -> Floors:
    """The floors of an engine under a demand."""
    step = step_floor(
        spec,
        concurrency=min(demand.concurrency, float(demand.requests)),
        longest_context=demand.longest_context,
        share_blocks=prefix_caching,
    )
    return Floors(step=step, latency=latency_floor(spec, demand))


def optimistic(
    demand: Demand, fleet: Sequence[tuple[Floors, int]], slo: Slo, devices: int, usd_per_hour: float
) -> Outcome:
    """An outcome that no run of the fleet can beat in any of its numbers."""
    work_s, _ = work_bound(demand, [(floors.step, replicas) for floors, replicas in fleet])
    return with_work(demand, fleet, slo, devices, usd_per_hour, work_s)


def with_work(
    demand: Demand,
    fleet: Sequence[tuple[Floors, int]],
    slo: Slo,
    devices: int,
    usd_per_hour: float,
    work_s: float,
) -> Outcome:
    """The optimistic outcome, given a lower bound on the duration of the work."""
    floors = [floors.latency for floors, _ in fleet]
    best = LatencyFloor(
        ttft_s=np.min([floor.ttft_s for floor in floors], axis=0),
        tpot_s=np.min([floor.tpot_s for floor in floors], axis=0),
        e2e_s=np.min([floor.e2e_s for floor in floors], axis=0),
    )
    duration_s = max(work_s, float((demand.offset_s + best.e2e_s).max())) * (1.0 - _ROUNDING)
    decoding = best.tpot_s[demand.output > 1]
    worked = demand.worked_per_output * demand.output_tokens
    idle_w = sum(floors.step.idle_w * replicas for floors, replicas in fleet)
    energy_j = worked * min(floors.step.token_j for floors, _ in fleet) + idle_w * duration_s * demand.counted_share
    return Outcome(
        duration_s=duration_s,
        requests=float(demand.requests),
        output_tokens=demand.output_tokens,
        good_requests=demand.requests * best.share_within(slo.ttft_s, slo.tpot_s, slo.e2e_s),
        mean_e2e_s=float(best.e2e_s.mean()) * (1.0 - _ROUNDING),
        mean_ttft_s=float(best.ttft_s.mean()) * (1.0 - _ROUNDING),
        mean_tpot_s=float(decoding.mean()) * (1.0 - _ROUNDING) if len(decoding) else 0.0,
        energy_j=energy_j * (1.0 - _ROUNDING),
        devices=devices,
        usd_per_hour=usd_per_hour,
    )


def simulate_plan(backend: Backend, plan: Plan, specs: Sequence[EngineSpec], workload: Workload, slo: Slo) -> Run:
    """Simulate a plan; `specs` holds the engine of each of its pools."""
    engines = [spec for pool, spec in zip(plan.pools, specs, strict=True) for _ in range(pool.replicas)]
    result = backend.simulate(engines, workload, plan.router)
    metrics = backend.metrics(result, slo)
    attainment = backend.attainment(result, slo)
    # energy is reported for the whole run: the counted requests' share, by output tokens
    energy_j = float(metrics["energy_j_per_output_token"]) * float(metrics["total_output_tokens"])
    outcome = outcome_of(metrics, attainment, energy_j, plan.devices, backend.usd_per_hour(plan))
    return Run(metrics=metrics, attainment=attainment, outcome=outcome, result=result)


def interval_metrics(
    backend: Backend, plan: Plan, specs: Sequence[EngineSpec], workload: Workload, slo: Slo, run: Run
) -> dict[str, tuple[float, float]]:
    """Each metric's range when all step times sit at the lower and at the upper end of their interval."""
    ends = [run.metrics]
    if backend.with_interval is not None:
        specs = [backend.with_interval(plan, pool) for pool in plan.pools]
    for side in ("lower", "upper"):
        moved = [replace(spec, tables=getattr(spec, side)) for spec in specs]
        ends.append(simulate_plan(backend, plan, moved, workload, slo).metrics)
    return {key: (min(m[key] for m in ends), max(m[key] for m in ends)) for key in run.metrics}


def simulated_candidate(plan: Plan, bound: float, run: Run, objective: Objective, slo: Slo) -> Candidate:
    """A candidate that was simulated."""
    return Candidate(
        plan=plan,
        bound=bound,
        objective=objective_value(objective, run.outcome),
        metrics=run.metrics,
        meets_slo=meets(run, slo, objective),
        status="simulated",
        reason=shortfall(run, slo, objective),
    )


# "least for this load": a plan that falls behind the load would always be the cheapest
FOR_A_LOAD: frozenset[Objective] = frozenset({"gpus", "cost-per-token", "energy-per-token"})


def meets(run: Run, slo: Slo, *objectives: Objective) -> bool:
    """Whether enough requests met every limit. Without a limit, whether the plan keeps up where the load is given."""
    if limited(slo):
        return run.attainment >= slo.attainment
    return not FOR_A_LOAD.intersection(objectives) or keeps_up(run)


def keeps_up(run: Run) -> bool:
    """Whether the last requests do not wait ever longer."""
    counted = slice(run.result.warmup_requests, None)
    return overload_wait_s(run.result.sent_s[counted], run.result.scheduled_s[counted]) == 0.0


def shortfall(run: Run, slo: Slo, objective: Objective) -> str:
    """Why a run does not count."""
    if meets(run, slo, objective):
        return ""
    return f"{run.attainment:.1%} of requests meet the SLO" if limited(slo) else "does not keep up with the load"


def limited(slo: Slo) -> bool:
    """Whether the SLO sets any limit."""
    return max(slo.ttft_s, slo.tpot_s, slo.e2e_s) > 0
