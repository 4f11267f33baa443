"""The batching decisions of one row, over plain arrays: `schedule` builds a step (postprocess.py takes its result).

vLLM V1's rules: decodes first, then the prefill in progress, then new requests, within one token budget; a decode that
finds no free block preempts the latest running request. Nothing here knows a clock or simpy.
"""

from __future__ import annotations

from simtool.simulator.jit import jit
from simtool.simulator.kvcache import (
    cached_blocks,
    cached_nodes,
    evictable_hits,
    free_blocks,
    hold_cached,
    prompt_tokens,
    publish_nodes,
    take_blocks,
)
from simtool.simulator.queues import (
    finish_forget,
    heap_before,
    running_append,
    running_remove,
    waiting_front,
    waiting_pop,
    waiting_prepend,
)
from simtool.simulator.state import (
    BATCH_CLOSED,
    BLOCK_SIZE,
    BLOCKS,
    BY_PRIORITY,
    CACHED,
    CHUNK_CONTEXT,
    CHUNK_NEW,
    CHUNK_REQ,
    CHUNKED,
    CHUNKS,
    COMPUTED,
    DECODES,
    FREE,
    GENERATED,
    INPUT,
    ITER,
    JOINS,
    KV_SUM,
    LANE,
    MAX_LEN,
    MAX_SEQS,
    MAX_TOKENS,
    MODE,
    NO_CHUNKING,
    NONE,
    NUM_BLOCKS,
    OUTPUT,
    OUTSTANDING,
    PARTIAL,
    PREEMPTED,
    PREEMPTIONS,
    PREV_RUN,
    REFUSED,
    RESERVE_FULL,
    RUN_TAIL,
    RUNNING,
    START,
    STATIC,
    STEP_DECODES,
    STEP_PREFILL,
    STEP_SAMPLED,
    WAITING,
    WATERMARK,
    State,
)


@jit
def blocks_for(tokens: int, block_size: int) -> int:
    """KV blocks that hold `tokens`."""
    return (tokens + block_size - 1) // block_size


@jit
def never_fits(s: State, group: int, req: int) -> bool:
    """Whether the request is beyond the engine's limits even when it is alone."""
    tokens = s.req_i[req, INPUT] + s.req_i[req, OUTPUT]
    config = s.config[group]
    too_long = tokens > config[MAX_LEN] or blocks_for(tokens, config[BLOCK_SIZE]) > config[NUM_BLOCKS]
    return bool(too_long or (config[MODE] == NO_CHUNKING and tokens > config[MAX_TOKENS]))


@jit
def add_chunk(s: State, row: int, lane: int, req: int, new: int, context: int) -> None:
    """`new` prompt tokens of the request, after `context` in the cache, run in this step."""
    i = s.lane_i[row, lane, CHUNKS]
    s.chunks[row, lane, i, CHUNK_REQ] = req
    s.chunks[row, lane, i, CHUNK_NEW] = new
    s.chunks[row, lane, i, CHUNK_CONTEXT] = context
    s.lane_i[row, lane, CHUNKS] = i + 1
    s.lane_i[row, lane, STEP_PREFILL] += new


@jit
def preempt(s: State, group: int, row: int, req: int) -> None:
    """Free the request's blocks and send it back to the front of the waiting queue; all is computed again."""
    lane = s.req_i[req, LANE]
    computed = s.req_i[req, COMPUTED]
    if s.lane_i[row, lane, PARTIAL] == req:
        s.lane_i[row, lane, PARTIAL] = NONE
    else:
        iterations = s.lane_i[row, lane, ITER] - s.req_i[req, START]
        computed += iterations
        s.lane_i[row, lane, DECODES] -= 1
        s.lane_i[row, lane, KV_SUM] -= computed
        finish_forget(s, row, lane, req)
        if s.config[group, RESERVE_FULL] < 2:
            size = s.config[group, BLOCK_SIZE]
            s.phase[row, lane, (s.req_i[req, START] - s.req_i[req, COMPUTED]) % size] -= 1
            s.req_i[req, BLOCKS] = blocks_for(computed, size)
        if iterations == 0 and s.lane_i[row, lane, JOINS] > 0:
            s.join_n[row, lane, s.lane_i[row, lane, JOINS] - 1] -= 1
        s.req_i[req, GENERATED] += 1 + iterations
    free_blocks(s, group, row, req, computed)
    running_remove(s, row, req)
    s.req_i[req, PREEMPTIONS] += 1
    s.row_i[row, PREEMPTED] = 1
    waiting_prepend(s, group, row, req)


@jit
def victim(s: State, group: int, row: int, lane: int) -> int:
    """The running request of the lane that goes first when blocks run out: the latest, or the least urgent."""
    req = s.row_i[row, RUN_TAIL]
    chosen = NONE
    while req != NONE:
        if s.req_i[req, LANE] == lane:
            if s.config[group, BY_PRIORITY] == 0:
                return int(req)
            if chosen == NONE or heap_before(s, chosen, req):
                chosen = req
        req = s.req_i[req, PREV_RUN]
    return int(chosen)


@jit
def start_decodes(s: State, group: int, row: int, lane: int) -> None:
    """Put all decodes of the lane in the step: each takes its block now, the latest requests making room."""
    phase = s.lane_i[row, lane, ITER] % s.config[group, BLOCK_SIZE]
    while s.phase[row, lane, phase] > s.row_i[row, FREE]:
        preempt(s, group, row, victim(s, group, row, lane))
    take_blocks(s, row, s.phase[row, lane, phase])
    s.lane_i[row, lane, STEP_DECODES] = s.lane_i[row, lane, DECODES]


@jit
def continue_prefill(s: State, group: int, row: int, lane: int, budget: int) -> int:
    """The next chunk of the prefill in progress; returns the budget left."""
    req = s.lane_i[row, lane, PARTIAL]
    if req == NONE or budget <= 0:
        return budget
    done = s.req_i[req, COMPUTED]
    chunk = min(budget, prompt_tokens(s, req) - done)
    if s.config[group, RESERVE_FULL] < 2:
        size = s.config[group, BLOCK_SIZE]
        need = blocks_for(done + chunk, size) - s.req_i[req, BLOCKS]
        if need > s.row_i[row, FREE]:
            preempt(s, group, row, req)
            return 0
        take_blocks(s, row, need)
        s.req_i[req, BLOCKS] += need
    publish_nodes(s, group, row, req, done + chunk)
    add_chunk(s, row, lane, req, chunk, done)
    if done + chunk == prompt_tokens(s, req):
        s.lane_i[row, lane, PARTIAL] = NONE
    return int(budget - chunk)


@jit
def admit_front(s: State, group: int, row: int, lane: int, budget: int) -> int:
    """Admit the request at the front if it fits now; returns its chunk (0: it has to wait)."""
    req = waiting_front(s, group, row)
    config = s.config[group]
    size, total = config[BLOCK_SIZE], prompt_tokens(s, req)
    nodes = cached_nodes(s, group, row, req)
    have = cached_blocks(s, group, row, req, nodes)
    cached = min(have * size, (total - 1) // size * size)
    chunk = min(total - cached, budget)
    if config[MODE] == NO_CHUNKING and chunk < total - cached:
        return 0
    target = blocks_for(cached + chunk, size)
    if config[RESERVE_FULL] == 2:
        target = blocks_for(s.req_i[req, INPUT] + s.req_i[req, OUTPUT], size)
    asked = target if config[RESERVE_FULL] != 1 else blocks_for(total, size)
    free = s.row_i[row, FREE] - evictable_hits(s, group, row, req, nodes)
    if asked - have > free - config[WATERMARK]:
        return 0
    waiting_pop(s, group, row)
    hold_cached(s, group, row, req, nodes)
    need = max(target - have, 0)
    take_blocks(s, row, need)
    s.req_i[req, BLOCKS] += need
    s.req_i[req, COMPUTED] = cached
    s.req_i[req, LANE] = lane
    if s.req_i[req, PREEMPTIONS] == 0:
        s.req_i[req, CACHED] = cached
    running_append(s, row, req)
    publish_nodes(s, group, row, req, cached + chunk)
    add_chunk(s, row, lane, req, chunk, cached)
    if cached + chunk < total:
        s.lane_i[row, lane, PARTIAL] = req
    return int(chunk)


@jit
def admit(s: State, group: int, row: int, lane: int, budget: int) -> None:
    """Admit from the front while the budget, the sequence limit and the free blocks allow."""
    limit = s.config[group, MAX_SEQS]
    while s.row_i[row, WAITING] > 0 and budget > 0:
        req = waiting_front(s, group, row)
        if never_fits(s, group, req):
            waiting_pop(s, group, row)
            s.row_i[row, REFUSED] += 1
            s.row_i[row, OUTSTANDING] -= 1
            continue
        if s.row_i[row, RUNNING] >= limit or s.lane_i[row, lane, PARTIAL] != NONE:
            return
        chunk = admit_front(s, group, row, lane, budget)
        if chunk == 0:
            return
        budget -= chunk


@jit
def schedule(s: State, group: int, row: int, lane: int) -> bool:
    """Decide the row's next step in the lane: STEP_DECODES decodes and the prefill chunks. False: nothing to run."""
    for column in (CHUNKS, STEP_PREFILL, STEP_DECODES, STEP_SAMPLED):
        s.lane_i[row, lane, column] = 0
    s.row_i[row, PREEMPTED] = 0
    mode, budget = s.config[group, MODE], s.config[group, MAX_TOKENS]
    if mode in (CHUNKED, NO_CHUNKING):
        start_decodes(s, group, row, lane)
        budget = continue_prefill(s, group, row, lane, budget - s.lane_i[row, lane, STEP_DECODES])
        if s.row_i[row, PREEMPTED] == 0:
            admit(s, group, row, lane, budget)
    else:
        closed = mode == STATIC and s.lane_i[row, lane, BATCH_CLOSED] == 1
        if not closed:
            budget = continue_prefill(s, group, row, lane, budget)
            if s.row_i[row, PREEMPTED] == 0:
                admit(s, group, row, lane, budget)
        if s.lane_i[row, lane, CHUNKS] == 0:
            start_decodes(s, group, row, lane)
            s.lane_i[row, lane, BATCH_CLOSED] = int(s.lane_i[row, lane, STEP_DECODES] > 0)
    sampled = s.lane_i[row, lane, STEP_DECODES]
    for i in range(s.lane_i[row, lane, CHUNKS]):
        req = s.chunks[row, lane, i, CHUNK_REQ]
        if s.chunks[row, lane, i, CHUNK_NEW] + s.chunks[row, lane, i, CHUNK_CONTEXT] == prompt_tokens(s, req):
            sampled += 1
    s.lane_i[row, lane, STEP_SAMPLED] = sampled
    return bool(s.lane_i[row, lane, STEP_DECODES] + s.lane_i[row, lane, CHUNKS] > 0)
