"""run_job: a plan run for real, on the simulator's decisions; what happened comes back in its words."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.execution import SCHEDULE_COLUMNS, Execution, Schedule
from simtool.calibration.executor.job import Job
from simtool.calibration.executor.measured_use import measured_use
from simtool.calibration.executor.real_clock import RealClock, RunStep, Steady
from simtool.calibration.executor.recording import recorded_routing
from simtool.errors import InputError
from simtool.metrics import Result
from simtool.simulator.routing import ROUTERS
from simtool.simulator.run import FIRST_RECORDS, result_of
from simtool.simulator.setup import build_state
from simtool.simulator.stepped import SteppedCluster

if TYPE_CHECKING:
    from simtool.calibration.executor.runner import Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class HostClock:
    """read: seconds of host work. steady: whether the machine runs at its usual speed (None: taken for granted)."""

    read: Callable[[], float] = time.perf_counter
    steady: Steady | None = None


def run_job(
    job: Job, runners: Sequence[Runner], *, seed: int, clock: HostClock, environment: Mapping[str, str | float]
) -> Execution:
    """Run the job's workload on `runners` (one a replica) to its end. seed: of the prompts' tokens.

    Time is virtual: it advances by what steps take, and idle time is skipped. Raises what a runner raises.
    """
    state = build_state(job.engines, job.workload, exact_steps=True, reserve_full=1, record_capacity=FIRST_RECORDS)
    real = RealClock(
        state,
        job.workload,
        runners,
        vocab_size=job.architecture.vocab_size,
        seed=seed,
        read=clock.read,
        steady=clock.steady,
    )
    cluster = SteppedCluster(state, job.workload, ROUTERS[job.plan.router], real)
    cluster.run()
    order = np.argsort(cluster.state.records[: cluster.state.record_n[0], 1], kind="stable")
    steps = [real.steps[place] for place in order]
    result = result_of(cluster, job.engines, job.workload)
    refused = _refused(result)
    generated = {req: rows.generated(req) for rows in real.sequences() for req in rows.known}
    return Execution(
        plan=job.plan,
        workload=job.workload,
        layers=job.layers,
        result=replace(
            result,
            energy_j=math.nan,
            steps=result.steps | step_times(steps),
            offload=measured_use(steps, result.steps),
        ),
        schedule=schedule_of(steps),
        tokens=tuple(generated.get(req, np.empty(0, np.int32)) for req in range(job.workload.num_requests)),
        environment=environment,
        routing=recorded_routing(steps, job.architecture),
        notes=(*job.notes, *([f"{refused} requests refused: they can never fit"] if refused else [])),
    )


def _refused(result: Result) -> int:
    """How many requests can never fit. Raises InputError where that is all of them."""
    refused = int(np.count_nonzero(~np.isfinite(result.finish_s)))
    if refused == len(result.finish_s):
        rule = "the plan refuses every request: each is longer than its context or its KV blocks hold"
        raise InputError(f"{refused} requests", rule, "shorter requests, or more --num-gpu-blocks-override")
    return refused


def step_times(steps: Sequence[RunStep]) -> dict[str, NDArray[np.float64]]:
    """host_s, and FAMILY_s of every operator family that was timed: float64[steps] each."""
    families = sorted({family for step in steps for family in step.outcome.family_s})
    columns = {"host_s": np.array([step.host_s for step in steps])}
    for family in families:
        columns[f"{family}_s"] = np.array([step.outcome.family_s.get(family, 0.0) for step in steps])
    return columns


def schedule_of(steps: Sequence[RunStep]) -> Schedule:
    """Who ran in which step."""
    rows = [
        (index, slot.request, rank, slot.new, slot.context, int(slot.samples))
        for index, step in enumerate(steps)
        for rank, batch in enumerate(step.batches)
        for slot in (*batch.decodes, *batch.prefills)
    ]
    columns = np.array(rows, np.int32).reshape(-1, len(SCHEDULE_COLUMNS))
    return Schedule(**{name: columns[:, place].copy() for place, name in enumerate(SCHEDULE_COLUMNS)})
