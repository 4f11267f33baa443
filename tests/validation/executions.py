"""Executions whose truth is known: the simulator's scheduler on a clock that departs from the price in known ways."""

from dataclasses import dataclass, field, replace

import numpy as np

from simtool.calibration.executor.execution import Execution
from simtool.calibration.executor.real_clock import RunStep
from simtool.calibration.executor.run_job import schedule_of
from simtool.calibration.executor.sequences import Sequences
from simtool.calibration.validation.families import family_seconds
from simtool.calibration.validation.predicting import price_plan
from simtool.calibration.validation.replay import batch_of
from simtool.plan import KvPolicy, Plan, Pool, Scheduler
from simtool.simulator import state as st
from simtool.simulator.routing import ROUTERS
from simtool.simulator.run import FIRST_RECORDS, result_of
from simtool.simulator.setup import build_state
from simtool.simulator.stepped import SteppedCluster
from simtool.workload import make_workload


@dataclass(frozen=True, kw_only=True)
class Truth:
    """factors: family -> times its price. host_s, per_request_s: of a step, in place of the priced host's."""

    factors: dict = field(default_factory=dict)
    host_s: float = 0.0
    per_request_s: float = 0.0
    jitter: float = 0.0
    seed: int = 0
    timed: bool = True


class TrueClock:
    """Steps take the price with each family times its factor, and the true host's time."""

    def __init__(self, priced, truth, workload):
        self.priced, self.truth, self.workload = priced, truth, workload
        self.rng = np.random.default_rng(truth.seed)
        self.seconds, self.rows, self.steps = {}, [], []
        self.sequences, self.flying = {}, {}

    def begin(self, state, group, lane):
        self.note_batch(state, group, lane)
        flight = state.flight_f[group, lane]
        priced_s = float(flight[st.LEAP_END] - flight[st.LEAP_START])
        batch = batch_of(state, group, lane)
        own = {family: float(s[0]) for family, s in family_seconds(self.priced, np.array([group]), [batch]).items()}
        true = {family: s * self.truth.factors.get(family, 1.0) for family, s in own.items()}
        host = self.priced.host
        kernels_s = priced_s - host.gap_s - host.base_s - host.per_request_s * batch.requests
        host_s = self.truth.host_s + self.truth.per_request_s * batch.requests
        took = kernels_s + sum(true.values()) - sum(own.values()) + host_s
        took *= 1 + self.truth.jitter * self.rng.standard_normal()
        self.seconds[group, lane] = took
        self.rows.append({"host_s": host_s, **{f"{family}_s": s for family, s in true.items()}})
        return 0.0

    def end(self, group, lane):
        return self.seconds.pop((group, lane))

    def ended(self, state, group, lane):
        for row, batch in zip(self.sequences[group], self.flying.pop((group, lane)), strict=True):
            row.ended(state, batch, np.zeros(sum(slot.samples for slot in batch.slots), np.int64))

    def note_batch(self, state, group, lane):
        """Who is in the step, as the executor's record has it."""
        if group not in self.sequences:
            first, count = int(state.group_i[group, st.ROW0]), int(state.group_i[group, st.ROWS])
            rows = range(first, first + count)
            self.sequences[group] = [Sequences(state, group, row, self.workload, 100, 0) for row in rows]
        self.flying[group, lane] = batches = tuple(row.batch(state, lane) for row in self.sequences[group])
        self.steps.append(RunStep(batches=batches, outcome=None, host_s=0.0))


def small_plan(**scheduler):
    knobs = {"max_num_seqs": 16, "max_num_batched_tokens": 512, "async_scheduling": False} | scheduler
    pool = Pool(device="h200", scheduler=Scheduler(**knobs), kv=KvPolicy(num_gpu_blocks=4000))
    return Plan(model="llama-3.1-8b", cluster="1xh200", pools=(pool,))


def small_workload(requests=30, rate=float("inf"), concurrency=0, seed=1):
    rng = np.random.default_rng(seed)
    arrival_s = np.zeros(requests) if rate == float("inf") else np.cumsum(rng.exponential(1 / rate, requests))
    inputs, outputs = rng.integers(20, 400, requests), rng.integers(2, 24, requests)
    return make_workload(
        np.zeros(requests) if concurrency else arrival_s,
        inputs.astype(np.int32),
        outputs.astype(np.int32),
        max_concurrency=concurrency,
        source="synthetic",
    )


def execute(truth=None, plan=None, workload=None):
    """What an executor would leave behind on a machine with that truth."""
    truth, plan, workload = truth or Truth(), plan or small_plan(), workload or small_workload()
    priced = price_plan(plan, workload)
    state = build_state(priced.engines, workload, exact_steps=True, reserve_full=1, record_capacity=FIRST_RECORDS)
    clock = TrueClock(priced, truth, workload)
    cluster = SteppedCluster(state, workload, ROUTERS[plan.router], clock)
    cluster.run()
    result = result_of(cluster, priced.engines, workload)
    names = sorted({name for row in clock.rows for name in row}) if truth.timed else []
    columns = {name: np.array([row.get(name, 0.0) for row in clock.rows]) for name in names}
    result = replace(result, steps={**result.steps, **columns})
    return Execution(
        plan=plan,
        workload=workload,
        layers=len(priced.architecture.layers),
        result=result,
        schedule=schedule_of(clock.steps),
        tokens=tuple(np.zeros(n, np.int32) for n in workload.output_tokens),
        environment={"device": "synthetic"},
    )
