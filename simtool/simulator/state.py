"""State: everything a running cluster knows, as flat arrays that the compiled kernel reads and writes.

A *group* is a replica. It has `dp` *rows* (each a scheduler with its own KV blocks, all stepping together) and `pp`
*lanes* (micro-batches in flight). Requests are rows of `req_i`/`req_f`. The constants below name the columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

I4 = NDArray[np.int32]
I8 = NDArray[np.int64]
F8 = NDArray[np.float64]

NONE = -1
INF = 1e300

# req_i columns: one 64-byte cache line a request
INPUT, OUTPUT, PRIORITY, NEXT, PREV_RUN, NEXT_RUN, COMPUTED, GENERATED = range(8)
BLOCKS, START, HELD, CACHED, PREEMPTIONS, LANE, CHILD = range(8, 15)
REQ_COLUMNS = 16
# req_f columns, seconds
ARRIVAL, SCHEDULED, FIRST, FINISH, LAST_TOKEN = range(5)
# row_i columns
FREE, PLAIN, RUNNING, HEAD, TAIL, PENDING, WAITING, RUN_TAIL, LRU_HEAD, LRU_TAIL = range(10)
OUTSTANDING, ENDED, ENDED_HEAD, RELEASE, REFUSED, HEAP, PREEMPTED = range(10, 17)
ROW_COLUMNS = 17
# lane_i columns
DECODES, KV_SUM, ITER, PARTIAL, FINISH_HEAP, JOINS, BATCH_CLOSED = range(7)
CHUNKS, STEP_PREFILL, STEP_DECODES, STEP_SAMPLED, BATCH_LEFT = range(7, 12)
LANE_COLUMNS = 12
# chunk columns
CHUNK_REQ, CHUNK_NEW, CHUNK_CONTEXT = range(3)
# group_i columns
ROW0, ROWS, TABLE, STEPS, CLOSED = range(5)
# group_f columns, seconds and joules
BUSY, ENERGY, LAST_END = range(3)
# scalars columns
PREFILL_STEP, MIXED_DECODE, ATTENTION_W, REQUEST_LATENCY, OVERLAPPED = range(5)
# flight_i and flight_f columns: the step (or leap of equal steps) that is running in a lane
LEAP, STEP_TOKENS, BLOCKED = range(3)
LEAP_START, LEAP_END, LEAP_FIXED, ATTENTION_SUM, LAST_START = range(5)
# config columns
MAX_SEQS, MAX_TOKENS, BLOCK_SIZE, NUM_BLOCKS, WATERMARK, MODE, BY_PRIORITY, PREFIX, PREFIX_BLOCKS = range(9)
MAX_LEN, LANES, EXACT, RESERVE_FULL, HOST_HIDDEN = range(9, 14)
# scheduling modes
CHUNKED, NO_CHUNKING, PREFILL_FIRST, STATIC = range(4)
# record columns
RECORD_FIELDS = (
    "replica",
    "start_s",
    "end_s",
    "iterations",
    "prefill_tokens",
    "decode_requests",
    "kv_blocks",
    "waiting",
    "running",
)
# inter-token gaps: bins 0.5% wide from 1 microsecond to 28 hours
ITL_LOW_S, ITL_RATIO, ITL_BINS = 1e-6, 1.005, 5080
MAX_JOINS = 64


class State(NamedTuple):
    """All arrays. Shapes: n requests, R rows, L lanes, G groups, M table sets, S stages, B KV block size."""

    req_i: I4  # [n, REQ_COLUMNS]
    req_f: F8  # [n, 5]
    row_i: I8  # [R, ROW_COLUMNS]
    lane_i: I8  # [R, L, LANE_COLUMNS]
    lane_f: F8  # [R, L] end of the lane's last decode iteration
    phase: I4  # [R, L, B] decoding requests by the iteration (mod B) in which they need a new block
    finish_heap: I8  # [R, L, max_seqs] (finish iteration << 32 | request), an entry for each that decodes
    join_s: F8  # [R, L, MAX_JOINS] first-token times of requests that have not decoded yet
    join_n: I8  # [R, L, MAX_JOINS]
    chunks: I4  # [R, L, max_seqs, 3] prefill chunks of the step being built
    group_i: I8  # [G, 5]
    group_f: F8  # [G, 3]
    flight_i: I8  # [G, L, 3] LEAP > 0: in flight
    flight_f: F8  # [G, L, 5] LAST_START: when the last iteration of the lane started
    lane_ready: F8  # [G, L]
    stage_free: F8  # [G, S]
    config: I8  # [G, 14] the config columns
    prefix_ids: I4  # [m]
    prefix_offsets: I8  # [n+1]
    node_refs: I4  # [R, H] requests that hold a prefix node
    node_blocks: I4  # [R, H+n] resident blocks of a node (0: absent); node H+i is request i's private tail
    node_prev: I4  # [R, H+n] links of the free list, least recently used first
    node_next: I4  # [R, H+n]
    itl: F8  # [ITL_BINS]
    records: F8  # [capacity, 9]
    record_n: I8  # [1]
    token_s: F8  # [M, S, T]
    shared_s: F8  # [M, S, T_all]
    decode_s: F8  # [M, S, D, K]
    leap_s: F8  # [M, D, K] decode_s of the only stage, less what an overlap saves of steps of decodes alone
    gain: F8  # [M, S, T, U, V]
    knots: F8  # [M, K]
    prefill_rate: F8  # [M, S, Q, C]
    head_s: F8  # [M, N]
    host_s: F8  # [M, N]
    p2p_s: F8  # [M, T]
    token_j: F8  # [M, T]
    scalars: F8  # [M, 5]
