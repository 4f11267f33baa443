"""Build the kernel's arrays from compiled engines and a workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simtool.errors import InputError
from simtool.simulator import state as st
from simtool.simulator.engine import EngineSpec
from simtool.simulator.state import State
from simtool.simulator.tables import Array, StepTables
from simtool.workload import Workload

MODES = {
    "chunked": st.CHUNKED,
    "no_chunking": st.NO_CHUNKING,
    "prefill_first": st.PREFILL_FIRST,
    "static": st.STATIC,
}


def stacked(arrays: Sequence[Array]) -> Array:
    """Stack tables of unlike sizes, the smaller ones padded with their edge values (never read)."""
    shape = tuple(max(a.shape[d] for a in arrays) for d in range(arrays[0].ndim))
    padded = [np.pad(a, [(0, shape[d] - a.shape[d]) for d in range(a.ndim)], mode="edge") for a in arrays]
    return np.ascontiguousarray(np.stack(padded).astype(np.float64))


def stacked_knots(tables: Sequence[StepTables]) -> Array:
    """KV-length knots; padding goes on increasing so that a segment never has zero width."""
    width = max(len(t.kv_knots) for t in tables)
    rows = [np.concatenate([t.kv_knots, t.kv_knots[-1] + 1.0 + np.arange(width - len(t.kv_knots))]) for t in tables]
    return np.stack(rows).astype(np.float64)


def config_row(engine: EngineSpec, workload: Workload, exact_steps: bool, reserve_full: int) -> list[int]:
    """One group's knobs, in the order of the config columns."""
    scheduler = engine.scheduler
    prefix = int(engine.prefix_caching)
    node_blocks = workload.prefix_block_tokens // engine.block_size
    if prefix and len(workload.prefix_ids) and node_blocks * engine.block_size != workload.prefix_block_tokens:
        raise InputError(
            f"prefix_block_tokens={workload.prefix_block_tokens}",
            f"must be a multiple of the KV block size {engine.block_size}",
            "choose a --block-size that divides it",
        )
    return [
        min(scheduler.max_num_seqs, scheduler.max_num_batched_tokens),
        scheduler.max_num_batched_tokens,
        engine.block_size,
        engine.num_blocks,
        engine.watermark_blocks,
        MODES[scheduler.scheduling],
        int(scheduler.policy == "priority"),
        prefix,
        max(node_blocks, 1),
        engine.max_model_len,
        engine.pp,
        int(exact_steps),
        2 if scheduler.scheduling == "static" else reserve_full,
        int(engine.tables.host_overlapped),
    ]


def request_arrays(workload: Workload, latency_s: float) -> tuple[st.I4, st.F8]:
    """Request columns in their start state; a request reaches its engine latency_s after it is sent."""
    n = workload.num_requests
    req_i = np.zeros((n, st.REQ_COLUMNS), np.int32)
    req_i[:, st.INPUT] = workload.input_tokens
    req_i[:, st.OUTPUT] = workload.output_tokens
    req_i[:, st.PRIORITY] = workload.priority if len(workload.priority) else 0
    for column in (st.NEXT, st.PREV_RUN, st.NEXT_RUN, st.CHILD):
        req_i[:, column] = st.NONE
    req_f = np.full((n, 5), -1.0)
    req_f[:, st.ARRIVAL] = workload.arrival_s + latency_s
    return req_i, req_f


def row_arrays(engines: Sequence[EngineSpec]) -> tuple[st.I8, st.I8, list[int]]:
    """Row and lane counters in their start state, and each group's first row."""
    first = np.cumsum([0, *(e.dp for e in engines)])
    row_i = np.zeros((first[-1], st.ROW_COLUMNS), np.int64)
    for column in (st.HEAD, st.TAIL, st.PENDING, st.RUN_TAIL, st.LRU_HEAD, st.LRU_TAIL, st.HEAP, st.ENDED_HEAD):
        row_i[:, column] = st.NONE
    row_i[:, st.RELEASE] = st.NONE
    for engine, row in zip(engines, first[:-1], strict=True):
        row_i[row : row + engine.dp, [st.FREE, st.PLAIN]] = engine.num_blocks
    lane_i = np.zeros((first[-1], max(e.pp for e in engines), st.LANE_COLUMNS), np.int64)
    lane_i[:, :, st.PARTIAL] = st.NONE
    return row_i, lane_i, [int(row) for row in first[:-1]]


def request_latency_s(engines: Sequence[EngineSpec]) -> float:
    """What a request waits outside the engines; one front end serves them all."""
    return max(engine.request_latency_s for engine in engines)


def table_arrays(tables: Sequence[StepTables], latency_s: float) -> dict[str, Any]:
    """The distinct step tables, stacked."""
    names = ("token_s", "shared_s", "decode_s", "prefill_rate", "head_s", "host_s", "p2p_s", "token_j")
    arrays = {name: stacked([getattr(t, name) for t in tables]) for name in names}
    none = np.zeros((1, 1, 2, 2))
    arrays["gain"] = stacked([t.gain if t.overlapped else none for t in tables])
    arrays["leap_s"] = stacked([t.leap_s if t.overlapped else t.decode_s[0] for t in tables])
    arrays["knots"] = stacked_knots(tables)
    arrays["scalars"] = np.array(
        [[t.prefill_step, t.mixed_decode, t.attention_w, latency_s, float(t.overlapped)] for t in tables]
    )
    return arrays


def prefix_arrays(engines: Sequence[EngineSpec], workload: Workload, rows: int) -> dict[str, Any]:
    """Prefix nodes of every row (those of the workload, then each request's private tail); empty without caching."""
    caching = any(e.prefix_caching for e in engines)
    ids = int(workload.prefix_ids.max()) + 1 if caching and len(workload.prefix_ids) else 0
    nodes = ids + workload.num_requests if caching else 0
    return {
        "prefix_ids": workload.prefix_ids.astype(np.int32),
        "prefix_offsets": workload.prefix_offsets.astype(np.int64),
        "node_refs": np.zeros((rows, ids), np.int32),
        "node_blocks": np.zeros((rows, nodes), np.int32),
        "node_prev": np.full((rows, nodes), st.NONE, np.int32),
        "node_next": np.full((rows, nodes), st.NONE, np.int32),
    }


def build_state(
    engines: Sequence[EngineSpec],
    workload: Workload,
    *,
    exact_steps: bool = False,
    reserve_full: int = 0,
    record_capacity: int = 0,
) -> State:
    """All arrays of a cluster of `engines` before the first arrival."""
    groups = len(engines)
    distinct = list({id(e.tables): e.tables for e in engines}.values())
    latency_s = request_latency_s(engines)
    req_i, req_f = request_arrays(workload, latency_s)
    row_i, lane_i, first = row_arrays(engines)
    rows, lanes = lane_i.shape[:2]
    seqs = max(e.scheduler.max_num_seqs for e in engines)
    index = {id(t): i for i, t in enumerate(distinct)}
    group_i = np.array([[r, e.dp, index[id(e.tables)], 0, 0] for e, r in zip(engines, first, strict=True)], np.int64)
    return State(
        req_i=req_i,
        req_f=req_f,
        row_i=row_i,
        lane_i=lane_i,
        lane_f=np.zeros((rows, lanes)),
        phase=np.zeros((rows, lanes, max(e.block_size for e in engines)), np.int32),
        finish_heap=np.zeros((rows, lanes, seqs), np.int64),
        join_s=np.zeros((rows, lanes, st.MAX_JOINS)),
        join_n=np.zeros((rows, lanes, st.MAX_JOINS), np.int64),
        chunks=np.zeros((rows, lanes, seqs, 3), np.int32),
        group_i=group_i,
        group_f=np.zeros((groups, 3)),
        flight_i=np.zeros((groups, lanes, 3), np.int64),
        flight_f=np.zeros((groups, lanes, 5)),
        lane_ready=np.zeros((groups, lanes)),
        stage_free=np.zeros((groups, lanes)),
        config=np.array([config_row(e, workload, exact_steps, reserve_full) for e in engines], np.int64),
        **prefix_arrays(engines, workload, rows),
        itl=np.zeros(st.ITL_BINS),
        records=np.zeros((record_capacity, len(st.RECORD_FIELDS))),
        record_n=np.zeros(1, np.int64),
        **table_arrays(distinct, latency_s),
    )
