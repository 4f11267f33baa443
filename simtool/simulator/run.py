"""Simulate compiled engines under a workload: the one entry that everything above the simulator uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simtool.errors import InputError
from simtool.metrics import Result
from simtool.simulator import state as st
from simtool.simulator.cluster import Cluster, run_cluster
from simtool.simulator.engine import EngineSpec
from simtool.simulator.offload.clock import OffloadClock
from simtool.simulator.routing import ROUTERS
from simtool.simulator.setup import build_state, request_latency_s
from simtool.simulator.state import State
from simtool.simulator.stepped import SteppedCluster
from simtool.workload import Workload

FIRST_RECORDS = 4096


def simulate_engines(
    engines: Sequence[EngineSpec],
    workload: Workload,
    *,
    router: str = "round_robin",
    exact_steps: bool = False,
    record_steps: bool = False,
    reserve_full_isl: bool = True,
) -> Result:
    """Run `workload` on `engines` (one a replica) and return its columns.

    exact_steps: one iteration at a time instead of leaps (the reference; same times to rounding).
    record_steps: keep one record a step or leap. reserve_full_isl: a request is admitted only when its whole prompt
    fits in the free KV blocks (vLLM's `scheduler_reserve_full_isl`, on by default), not just its first chunk.
    Raises InputError when there is nothing to run.
    """
    if workload.num_requests == 0:
        raise InputError("workload", "has no requests", "give a trace with at least one row, or --num-prompts 1")
    if not engines:
        raise InputError("engines", "there is no replica to run on")
    if router not in ROUTERS:
        raise InputError(f"router={router}", f"must be one of {', '.join(ROUTERS)}")
    offloaded = any(engine.offload is not None for engine in engines)
    state = build_state(
        engines,
        workload,
        exact_steps=exact_steps or offloaded,
        reserve_full=int(reserve_full_isl),
        record_capacity=FIRST_RECORDS if record_steps else 0,
    )
    if offloaded:
        return run_offloaded(state, engines, workload, ROUTERS[router])
    return result_of(run_cluster(state, workload, ROUTERS[router]), engines, workload)


def run_offloaded(state: State, engines: Sequence[EngineSpec], workload: Workload, router: int) -> Result:
    """As `run_cluster`, a step at a time: where experts are, and so what a step takes, changes with every step."""
    clock = OffloadClock(engines)
    cluster = SteppedCluster(state, workload, router, clock)
    cluster.run()
    return replace(result_of(cluster, engines, workload), offload=clock.use())


def result_of(cluster: Cluster, engines: Sequence[EngineSpec], workload: Workload) -> Result:
    """Columns of a cluster that has run to its end."""
    s = cluster.state
    first, finish = s.req_f[:, st.FIRST].copy(), s.req_f[:, st.FINISH].copy()
    refused = finish < 0
    first[refused] = finish[refused] = np.nan
    reactive = workload.max_concurrency > 0 or len(workload.follows) > 0
    sent = s.req_f[:, st.ARRIVAL] - request_latency_s(engines) if reactive else workload.arrival_s
    groups = np.repeat(np.arange(len(engines)), [e.dp for e in engines])
    span_s = float(s.group_f[:, st.LAST_END].max() - sent.min())
    idle_w = sum(e.tables.idle_w for e in engines)
    return Result(
        sent_s=sent,
        scheduled_s=np.where(refused, np.nan, s.req_f[:, st.SCHEDULED]),
        first_token_s=first,
        finish_s=finish,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        cached_tokens=s.req_i[:, st.CACHED].copy(),
        replica=groups[cluster.rows].astype(np.int32),
        preemptions=s.req_i[:, st.PREEMPTIONS].copy(),
        itl_bins=st.ITL_LOW_S * st.ITL_RATIO ** np.arange(st.ITL_BINS + 1, dtype=np.float64),
        itl_counts=s.itl,
        steps=step_columns(s),
        energy_j=float(s.group_f[:, st.ENERGY].sum()) + idle_w * max(span_s, 0.0),
        busy_s=float(s.group_f[:, st.BUSY].sum()),
        num_steps=int(s.group_i[:, st.STEPS].sum()),
        devices=sum(e.devices for e in engines),
        kv_blocks=tuple(e.num_blocks * e.dp for e in engines),
        warmup_requests=workload.warmup_requests,
    )


def step_columns(s: st.State) -> dict[str, st.F8]:
    """The step log by column, in order of time."""
    if not len(s.records):
        return {}
    rows = s.records[: s.record_n[0]]
    rows = rows[np.argsort(rows[:, 1], kind="stable")]
    return {name: rows[:, i].copy() for i, name in enumerate(st.RECORD_FIELDS)}
