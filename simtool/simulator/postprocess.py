"""What a finished step changes: tokens are produced, requests finish, blocks are taken and given back."""

from __future__ import annotations

from simtool.simulator.gaps import record_gap
from simtool.simulator.jit import jit
from simtool.simulator.kvcache import free_blocks, prompt_tokens, take_blocks
from simtool.simulator.queues import finish_drop, finish_push, next_finish, running_remove
from simtool.simulator.state import (
    ARRIVAL,
    BATCH_CLOSED,
    BATCH_LEFT,
    BLOCK_SIZE,
    BLOCKS,
    CHUNK_CONTEXT,
    CHUNK_NEW,
    CHUNK_REQ,
    CHUNKS,
    CLOSED,
    COMPUTED,
    DECODES,
    ENDED,
    ENDED_HEAD,
    FINISH,
    FIRST,
    GENERATED,
    INPUT,
    ITER,
    JOINS,
    KV_SUM,
    LAST_TOKEN,
    MAX_JOINS,
    MODE,
    NEXT,
    NONE,
    OUTPUT,
    OUTSTANDING,
    RELEASE,
    REQUEST_LATENCY,
    RESERVE_FULL,
    START,
    STATIC,
    STEP_DECODES,
    TABLE,
    State,
)


@jit
def finish(s: State, group: int, row: int, req: int, end_s: float) -> None:
    """The request has all its tokens: stamp it, free its blocks, let the next one in under a closed loop."""
    s.req_f[req, FINISH] = end_s
    if s.config[group, RESERVE_FULL] < 2 and s.req_i[req, OUTPUT] > 1:
        size = s.config[group, BLOCK_SIZE]
        tokens = s.req_i[req, INPUT] + s.req_i[req, OUTPUT] - 1
        s.req_i[req, BLOCKS] = (tokens + size - 1) // size
    free_blocks(s, group, row, req, s.req_i[req, INPUT] + s.req_i[req, OUTPUT] - 1)
    running_remove(s, row, req)
    s.row_i[row, OUTSTANDING] -= 1
    s.row_i[row, ENDED] += 1
    s.req_i[req, NEXT] = s.row_i[row, ENDED_HEAD]
    s.row_i[row, ENDED_HEAD] = req
    released = s.row_i[row, RELEASE]
    if s.group_i[group, CLOSED] == 1 and released != NONE:
        s.req_f[released, ARRIVAL] = end_s + s.scalars[s.group_i[group, TABLE], REQUEST_LATENCY]
        s.row_i[row, RELEASE] = s.req_i[released, NEXT]


@jit
def leave_decode(s: State, group: int, row: int, lane: int, req: int) -> None:
    """Take a decoding request out of the lane's sums (a static batch keeps its width until the longest ends)."""
    if s.config[group, MODE] == STATIC:
        s.lane_i[row, lane, BATCH_LEFT] -= 1
        if s.lane_i[row, lane, BATCH_LEFT] == 0:
            s.lane_i[row, lane, DECODES] = 0
            s.lane_i[row, lane, KV_SUM] = 0
            s.lane_i[row, lane, BATCH_CLOSED] = 0
        return
    iterations = s.lane_i[row, lane, ITER] - s.req_i[req, START]
    s.lane_i[row, lane, DECODES] -= 1
    s.lane_i[row, lane, KV_SUM] -= s.req_i[req, COMPUTED] + iterations
    if s.config[group, RESERVE_FULL] < 2:
        key = (s.req_i[req, START] - s.req_i[req, COMPUTED]) % s.config[group, BLOCK_SIZE]
        s.phase[row, lane, key] -= 1


@jit
def decode_blocks(s: State, group: int, row: int, lane: int, iterations: int) -> int:
    """Blocks that the lane's decodes take in the next `iterations` iterations, beyond those of the first."""
    size = s.config[group, BLOCK_SIZE]
    if s.config[group, RESERVE_FULL] == 2:
        return 0
    first, more = s.lane_i[row, lane, ITER] + 1, iterations - 1
    blocks = (more // size) * s.lane_i[row, lane, DECODES]
    for i in range(more % size):
        blocks += s.phase[row, lane, (first + i) % size]
    return int(blocks)


@jit
def finish_decodes(s: State, group: int, row: int, lane: int, iterations: int, end_s: float) -> None:
    """Advance the lane's decodes by `iterations` tokens each and end those that are complete."""
    take_blocks(s, row, decode_blocks(s, group, row, lane, iterations))
    s.lane_i[row, lane, ITER] += iterations
    s.lane_i[row, lane, KV_SUM] += iterations * s.lane_i[row, lane, DECODES]
    s.lane_f[row, lane] = end_s
    while next_finish(s, row, lane) <= 0:
        req = s.finish_heap[row, lane, 0] & 0xFFFFFFFF
        finish_drop(s, row, lane, 0)
        leave_decode(s, group, row, lane, req)
        finish(s, group, row, req, end_s)


@jit
def join_decode(s: State, group: int, row: int, lane: int, req: int, end_s: float) -> None:
    """The request's prompt is done and a token came out: from the next iteration on it decodes."""
    iteration = s.lane_i[row, lane, ITER]
    s.req_i[req, START] = iteration
    s.lane_i[row, lane, DECODES] += 1
    s.lane_i[row, lane, BATCH_LEFT] += 1
    s.lane_i[row, lane, KV_SUM] += s.req_i[req, COMPUTED]
    if s.config[group, RESERVE_FULL] < 2:
        size = s.config[group, BLOCK_SIZE]
        s.phase[row, lane, (iteration - s.req_i[req, COMPUTED]) % size] += 1
    finish_push(s, row, lane, iteration + s.req_i[req, OUTPUT] - 1 - s.req_i[req, GENERATED], req)
    joins = s.lane_i[row, lane, JOINS]
    if joins > 0 and (s.join_s[row, lane, joins - 1] == end_s or joins == MAX_JOINS):
        s.join_n[row, lane, joins - 1] += 1
        return
    s.join_s[row, lane, joins] = end_s
    s.join_n[row, lane, joins] = 1
    s.lane_i[row, lane, JOINS] = joins + 1


@jit
def finish_chunk(s: State, group: int, row: int, lane: int, chunk: int, end_s: float) -> None:
    """A prefill chunk is computed; the last one of a prompt yields a token."""
    req = s.chunks[row, lane, chunk, CHUNK_REQ]
    s.req_i[req, COMPUTED] = s.chunks[row, lane, chunk, CHUNK_NEW] + s.chunks[row, lane, chunk, CHUNK_CONTEXT]
    if s.req_i[req, COMPUTED] < prompt_tokens(s, req):
        return
    if s.req_i[req, GENERATED] == 0:
        s.req_f[req, FIRST] = end_s
    else:
        record_gap(s, end_s - s.req_f[req, LAST_TOKEN], 1)
    if s.req_i[req, GENERATED] + 1 == s.req_i[req, OUTPUT]:
        finish(s, group, row, req, end_s)
    else:
        join_decode(s, group, row, lane, req, end_s)


@jit
def postprocess(s: State, group: int, row: int, lane: int, iterations: int, end_s: float) -> None:
    """Apply the scheduled step (run `iterations` times if it had decodes only), stamping `end_s`."""
    s.row_i[row, ENDED] = 0
    s.row_i[row, ENDED_HEAD] = NONE
    if s.lane_i[row, lane, STEP_DECODES] > 0:
        finish_decodes(s, group, row, lane, iterations, end_s)
    for chunk in range(s.lane_i[row, lane, CHUNKS]):
        finish_chunk(s, group, row, lane, chunk, end_s)
