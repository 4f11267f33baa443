"""A step in flight: priced through the stages, repeated as long as nothing changes, then applied."""

from __future__ import annotations

from simtool.simulator.gaps import record_first
from simtool.simulator.jit import jit
from simtool.simulator.postprocess import decode_blocks, postprocess
from simtool.simulator.pricing import hidden_attention_s, leap, leap_seconds, record_leap, stage_seconds
from simtool.simulator.queues import next_finish
from simtool.simulator.state import (
    ARRIVAL,
    ATTENTION_SUM,
    ATTENTION_W,
    BATCH_LEFT,
    BLOCK_SIZE,
    BLOCKED,
    BUSY,
    CHUNKS,
    DECODES,
    ENDED,
    ENERGY,
    EXACT,
    FREE,
    HOST_HIDDEN,
    INF,
    KV_SUM,
    LANES,
    LAST_END,
    LAST_START,
    LEAP,
    LEAP_END,
    LEAP_FIXED,
    LEAP_START,
    MAX_SEQS,
    MODE,
    NONE,
    NUM_BLOCKS,
    PARTIAL,
    PENDING,
    PREEMPTED,
    ROW0,
    ROWS,
    RUNNING,
    STATIC,
    STEP_DECODES,
    STEP_PREFILL,
    STEP_SAMPLED,
    STEP_TOKENS,
    STEPS,
    TABLE,
    WAITING,
    State,
)


@jit
def step_size(s: State, group: int, lane: int) -> tuple[int, int, int]:
    """(tokens of all rows, sampled tokens of all rows, requests of the fullest row)."""
    tokens, sampled, requests = 0, 0, 0
    for row in range(s.group_i[group, ROW0], s.group_i[group, ROW0] + s.group_i[group, ROWS]):
        decodes = s.lane_i[row, lane, STEP_DECODES]
        tokens += decodes + s.lane_i[row, lane, STEP_PREFILL]
        sampled += s.lane_i[row, lane, STEP_SAMPLED]
        requests = max(requests, decodes + s.lane_i[row, lane, CHUNKS])
    return tokens, sampled, requests


@jit
def price(s: State, group: int, lane: int, start_s: float) -> None:
    """Time one iteration through all stages; LEAP_FIXED is what does not grow with the KV (-1: no closed form)."""
    table, stages = s.group_i[group, TABLE], s.config[group, LANES]
    tokens, sampled, requests = step_size(s, group, lane)
    host_s, hidden = s.host_s[table, requests], s.config[group, HOST_HIDDEN] == 1
    now_s, attention_s = start_s if hidden else start_s + host_s, 0.0
    for stage in range(stages):
        seconds, mine = stage_seconds(s, group, stage, lane)
        if stage == stages - 1:
            seconds += s.head_s[table, sampled]
        if stage > 0:
            now_s = max(now_s + s.p2p_s[table, min(tokens, s.p2p_s.shape[1] - 1)], s.stage_free[group, stage])
        now_s += seconds
        s.stage_free[group, stage] = now_s
        attention_s += mine
    fixed_s = now_s - start_s - attention_s
    if hidden and now_s < start_s + host_s:
        now_s, fixed_s = start_s + host_s, -1.0
    s.flight_i[group, lane, STEP_TOKENS] = tokens
    s.flight_f[group, lane, LEAP_START] = start_s
    s.flight_f[group, lane, LEAP_END] = now_s
    s.flight_f[group, lane, ATTENTION_SUM] = attention_s
    s.flight_f[group, lane, LEAP_FIXED] = fixed_s
    s.flight_f[group, lane, LAST_START] = start_s


@jit
def longest_leap(s: State, group: int, lane: int) -> int:
    """Iterations that the scheduled step may repeat: until a request ends or blocks run out; 1 if it has prefills."""
    row, config = s.group_i[group, ROW0], s.config[group]
    if s.group_i[group, ROWS] > 1 or config[LANES] > 1 or config[EXACT] == 1:
        return 1
    if s.flight_f[group, lane, LEAP_FIXED] < 0:
        return 1
    if s.lane_i[row, lane, CHUNKS] > 0 or s.lane_i[row, lane, PARTIAL] != NONE or s.row_i[row, PREEMPTED] == 1:
        return 1  # a step that preempts admits nobody; the next one may
    most = min(next_finish(s, row, lane), 1 << 30)
    free = s.row_i[row, FREE]
    if s.lane_i[row, lane, DECODES] * (most // config[BLOCK_SIZE] + 1) <= free:
        return int(most)
    low, high = 1, int(most)
    while low < high:
        middle = (low + high + 1) >> 1
        if decode_blocks(s, group, row, lane, middle) <= free:
            low = middle
        else:
            high = middle - 1
    return low


@jit
def next_arrival(s: State, group: int) -> float:
    """When the leap must end for a new request: its arrival, unless somebody waits already or there is no slot."""
    row = s.group_i[group, ROW0]
    pending = s.row_i[row, PENDING]
    if pending == NONE or s.row_i[row, WAITING] > 0 or s.row_i[row, RUNNING] >= s.config[group, MAX_SEQS]:
        return INF
    return float(s.req_f[pending, ARRIVAL])


@jit
def extend(s: State, group: int, lane: int, most: int, horizon_s: float) -> None:
    """Repeat the decode step, at most `most` times, with iterations that start before the horizon."""
    row, table = s.group_i[group, ROW0], s.group_i[group, TABLE]
    decodes = s.lane_i[row, lane, DECODES]
    mean = s.lane_i[row, lane, KV_SUM] / decodes + 1.0
    start_s, fixed_s = s.flight_f[group, lane, LEAP_START], s.flight_f[group, lane, LEAP_FIXED]
    iterations, end_s, attention_s = leap(s, table, decodes, mean, fixed_s, most, start_s, horizon_s)
    s.flight_i[group, lane, LEAP] = iterations
    s.flight_f[group, lane, LEAP_END] = end_s
    s.flight_f[group, lane, ATTENTION_SUM] = attention_s
    last_s = fixed_s + leap_seconds(s, table, decodes, mean + (iterations - 1))
    s.flight_f[group, lane, LAST_START] = end_s - last_s if iterations > 1 else start_s
    s.stage_free[group, 0] = end_s


@jit
def fly(s: State, group: int, lane: int, start_s: float, horizon_s: float) -> None:
    """Start the scheduled step of the lane."""
    s.flight_i[group, lane, LEAP] = 1
    price(s, group, lane, start_s)
    most = longest_leap(s, group, lane)
    if most > 1:
        extend(s, group, lane, most, min(horizon_s, next_arrival(s, group)))


@jit
def cut(s: State, group: int, lane: int, now_s: float) -> None:
    """Somebody arrived at now_s: the leap ends with the iteration that is running then."""
    extend(s, group, lane, s.flight_i[group, lane, LEAP], now_s)


@jit
def write_record(s: State, group: int, lane: int) -> None:
    """One line of the step log (RECORD_FIELDS)."""
    record = s.records[s.record_n[0]]
    record[0], record[3] = group, s.flight_i[group, lane, LEAP]
    record[1], record[2] = s.flight_f[group, lane, LEAP_START], s.flight_f[group, lane, LEAP_END]
    for row in range(s.group_i[group, ROW0], s.group_i[group, ROW0] + s.group_i[group, ROWS]):
        record[4] += s.lane_i[row, lane, STEP_PREFILL]
        record[5] += s.lane_i[row, lane, STEP_DECODES]
        record[6] += s.config[group, NUM_BLOCKS] - s.row_i[row, FREE]
        record[7] += s.row_i[row, WAITING]
        record[8] += s.row_i[row, RUNNING]
    s.record_n[0] += 1


@jit
def record_row_gaps(s: State, group: int, row: int, lane: int) -> None:
    """Inter-token gaps of the row's decodes over the leap."""
    decodes, iterations = s.lane_i[row, lane, STEP_DECODES], s.flight_i[group, lane, LEAP]
    if decodes == 0:
        return
    alive = s.lane_i[row, lane, BATCH_LEFT] if s.config[group, MODE] == STATIC else decodes
    end_s = s.flight_f[group, lane, LEAP_END]
    if iterations > 1:
        table, fixed_s = s.group_i[group, TABLE], s.flight_f[group, lane, LEAP_FIXED]
        mean = s.lane_i[row, lane, KV_SUM] / decodes + 1.0
        record_leap(s, table, decodes, mean, fixed_s, iterations, alive)
        end_s = leap(s, table, decodes, mean, fixed_s, 1, s.flight_f[group, lane, LEAP_START], INF)[1]
    record_first(s, row, lane, alive, end_s)


@jit
def commit(s: State, group: int, lane: int) -> int:
    """Apply the leap that has run; returns how many requests it finished."""
    iterations, table = s.flight_i[group, lane, LEAP], s.group_i[group, TABLE]
    end_s = s.flight_f[group, lane, LEAP_END]
    if s.records.shape[0] > 0:
        write_record(s, group, lane)
    attention_s = s.flight_f[group, lane, ATTENTION_SUM] + hidden_attention_s(s, group, lane, iterations)
    ended = 0
    for row in range(s.group_i[group, ROW0], s.group_i[group, ROW0] + s.group_i[group, ROWS]):
        record_row_gaps(s, group, row, lane)
        postprocess(s, group, row, lane, iterations, end_s)
        ended += s.row_i[row, ENDED]
    s.flight_i[group, lane, LEAP] = 0
    for other in range(s.config[group, LANES]):
        s.flight_i[group, other, BLOCKED] = 0
    s.lane_ready[group, lane] = end_s
    s.group_i[group, STEPS] += iterations
    s.group_f[group, BUSY] += (end_s - s.flight_f[group, lane, LEAP_START]) / s.config[group, LANES]
    joules = s.token_j[table, min(s.flight_i[group, lane, STEP_TOKENS], s.token_j.shape[1] - 1)]
    s.group_f[group, ENERGY] += iterations * joules + s.scalars[table, ATTENTION_W] * attention_s
    s.group_f[group, LAST_END] = max(s.group_f[group, LAST_END], end_s)
    return int(ended)
