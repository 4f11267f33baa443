"""Seconds of one iteration from the step tables, and the exact sum over a leap of homogeneous decode iterations."""

from __future__ import annotations

import math

from simtool.simulator.gaps import record_run
from simtool.simulator.jit import jit
from simtool.simulator.state import (
    CHUNK_CONTEXT,
    CHUNK_NEW,
    CHUNKS,
    DECODES,
    INF,
    KV_SUM,
    LANES,
    MIXED_DECODE,
    OVERLAPPED,
    PREFILL_STEP,
    ROW0,
    ROWS,
    STEP_DECODES,
    STEP_PREFILL,
    TABLE,
    State,
)


@jit
def knot_below(s: State, table: int, x: float) -> int:
    """Index j with knots[j] <= x < knots[j+1] (the last segment extends to the right)."""
    low, high = 0, s.knots.shape[1] - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if s.knots[table, middle] <= x:
            low = middle
        else:
            high = middle
    return low


@jit
def decode_seconds(s: State, table: int, stage: int, decodes: int, x: float) -> float:
    """Decode attention of `decodes` requests at mean KV length x: piecewise linear in x."""
    j = knot_below(s, table, x)
    x0, x1 = s.knots[table, j], s.knots[table, j + 1]
    a, b = s.decode_s[table, stage, decodes, j], s.decode_s[table, stage, decodes, j + 1]
    return float(a + (b - a) * ((x - x0) / (x1 - x0)))


@jit
def prefill_seconds(s: State, table: int, stage: int, new: int, context: int) -> float:
    """Prefill attention of one chunk: the rate a (query, key) pair, bilinear in log lengths, times the pairs."""
    step = s.scalars[table, PREFILL_STEP]
    rows, columns = s.prefill_rate.shape[2], s.prefill_rate.shape[3]
    u = min(math.log2(new) / step, rows - 1.000001)
    v = min(math.log2(context + 1.0) / step, columns - 1.000001)
    i, j = int(u), int(v)
    u, v = u - i, v - j
    rate = s.prefill_rate[table, stage]
    low = rate[i, j] + (rate[i, j + 1] - rate[i, j]) * v
    high = rate[i + 1, j] + (rate[i + 1, j + 1] - rate[i + 1, j]) * v
    return float((low + (high - low) * u) * new * (context + 0.5 * (new + 1)))


@jit
def leap_seconds(s: State, table: int, decodes: int, x: float) -> float:
    """As `decode_seconds` of the only stage, less what an overlap saves of a step of `decodes` alone."""
    j = knot_below(s, table, x)
    x0, x1 = s.knots[table, j], s.knots[table, j + 1]
    a, b = s.leap_s[table, decodes, j], s.leap_s[table, decodes, j + 1]
    return float(a + (b - a) * ((x - x0) / (x1 - x0)))


@jit
def decode_part(s: State, table: int, stage: int, row: int, lane: int) -> float:
    """Decode attention of the row's scheduled step in one stage (first iteration)."""
    decodes = s.lane_i[row, lane, STEP_DECODES]
    if decodes == 0:
        return 0.0
    mean = s.lane_i[row, lane, KV_SUM] / s.lane_i[row, lane, DECODES] + 1.0
    beside_prefill = s.scalars[table, MIXED_DECODE] if s.lane_i[row, lane, CHUNKS] > 0 else 1.0
    return decode_seconds(s, table, stage, decodes, mean) * beside_prefill


@jit
def attention_seconds(s: State, table: int, stage: int, row: int, lane: int) -> float:
    """All attention of the row's scheduled step in one stage (first iteration)."""
    seconds = decode_part(s, table, stage, row, lane)
    for i in range(s.lane_i[row, lane, CHUNKS]):
        seconds += prefill_seconds(
            s, table, stage, s.chunks[row, lane, i, CHUNK_NEW], s.chunks[row, lane, i, CHUNK_CONTEXT]
        )
    return seconds


@jit
def saved_share(s: State, table: int, stage: int, tokens: int, decode_share: float, prefill_share: float) -> float:
    """Share of a stage's step that the overlap saves, bilinear in the shares of attention; the first row and column
    are steps that have none.
    """
    gain = s.gain[table, stage, tokens]
    u, v = decode_share * (gain.shape[0] - 2), prefill_share * (gain.shape[1] - 2)
    i, j = 1 + min(int(u), gain.shape[0] - 3), 1 + min(int(v), gain.shape[1] - 3)
    u, v = u + 1 - i, v + 1 - j
    if decode_share <= 0:
        i, u = 0, 0.0
    if prefill_share <= 0:
        j, v = 0, 0.0
    low = gain[i, j] + (gain[i, j + 1] - gain[i, j]) * v
    high = gain[i + 1, j] + (gain[i + 1, j + 1] - gain[i + 1, j]) * v
    return float(low + (high - low) * u)


@jit
def leaps(s: State, group: int, lane: int) -> bool:
    """Whether the step's closed form counts: one rank, one stage, no prefill chunks."""
    row = s.group_i[group, ROW0]
    return bool(s.group_i[group, ROWS] == 1 and s.config[group, LANES] == 1 and s.lane_i[row, lane, CHUNKS] == 0)


@jit
def overlapped_seconds(s: State, group: int, stage: int, lane: int) -> tuple[float, float]:
    """As `stage_seconds`, with an overlap. Each rank saves by what it runs itself."""
    table, row0 = s.group_i[group, TABLE], s.group_i[group, ROW0]
    total = 0
    for row in range(row0, row0 + s.group_i[group, ROWS]):
        total += s.lane_i[row, lane, STEP_DECODES] + s.lane_i[row, lane, STEP_PREFILL]
    slowest, attention = 0.0, 0.0
    for row in range(row0, row0 + s.group_i[group, ROWS]):
        decodes = s.lane_i[row, lane, STEP_DECODES]
        tokens = decodes + s.lane_i[row, lane, STEP_PREFILL]
        if tokens == 0:
            continue
        base = s.token_s[table, stage, tokens] + s.shared_s[table, stage, total]
        if leaps(s, group, lane):
            mine = leap_seconds(s, table, decodes, s.lane_i[row, lane, KV_SUM] / s.lane_i[row, lane, DECODES] + 1.0)
            seconds = base + mine
        else:
            mine = attention_seconds(s, table, stage, row, lane)
            decode = decode_part(s, table, stage, row, lane)
            prefill = mine - decode
            shares = decode / (base + decode), prefill / (base + prefill)
            seconds = (base + mine) * (1.0 - saved_share(s, table, stage, tokens, shares[0], shares[1]))
        if seconds > slowest:
            slowest, attention = seconds, mine
    return slowest, attention


@jit
def stage_seconds(s: State, group: int, stage: int, lane: int) -> tuple[float, float]:
    """One stage of the scheduled step: (seconds of the slowest row plus the shared part, attention seconds of it)."""
    table, row0 = s.group_i[group, TABLE], s.group_i[group, ROW0]
    if s.scalars[table, OVERLAPPED] > 0:
        return overlapped_seconds(s, group, stage, lane)
    slowest, attention, total = 0.0, 0.0, 0
    for row in range(row0, row0 + s.group_i[group, ROWS]):
        tokens = s.lane_i[row, lane, STEP_DECODES] + s.lane_i[row, lane, STEP_PREFILL]
        total += tokens
        if tokens == 0:
            continue
        mine = attention_seconds(s, table, stage, row, lane)
        if s.token_s[table, stage, tokens] + mine > slowest:
            slowest = s.token_s[table, stage, tokens] + mine
            attention = mine
    return slowest + s.shared_s[table, stage, total], attention


@jit
def segment(s: State, table: int, decodes: int, x: float) -> tuple[float, float, int]:
    """Decode attention at x, its growth a token, and how many iterations stay on this linear piece."""
    j = knot_below(s, table, x)
    slope = (s.leap_s[table, decodes, j + 1] - s.leap_s[table, decodes, j]) / (
        s.knots[table, j + 1] - s.knots[table, j]
    )
    value = s.leap_s[table, decodes, j] + slope * (x - s.knots[table, j])
    if j == s.knots.shape[1] - 2:
        return value, slope, 1 << 40
    return value, slope, max(math.ceil(s.knots[table, j + 1] - x), 1)


@jit
def run_seconds(first_s: float, slope_s: float, iterations: int) -> float:
    """Sum of an arithmetic series."""
    return iterations * first_s + slope_s * (0.5 * iterations * (iterations - 1))


@jit
def iterations_until(first_s: float, slope_s: float, most: int, limit_s: float) -> int:
    """Smallest number of iterations, at most `most`, whose sum reaches limit_s."""
    low, high = 1, most
    while low < high:
        middle = (low + high) >> 1
        if run_seconds(first_s, slope_s, middle) >= limit_s:
            high = middle
        else:
            low = middle + 1
    return low


@jit
def leap(
    s: State, table: int, decodes: int, x: float, fixed_s: float, most: int, start_s: float, horizon_s: float
) -> tuple[int, float, float]:
    """As many of `most` iterations as start before the horizon: (iterations, end, attention seconds).

    Iteration i takes fixed_s + decode(x + i); the running iteration at the horizon is part of the leap.
    """
    done, now_s, attention_s = 0, start_s, 0.0
    while done == 0 or (done < most and now_s < horizon_s):
        value, slope, run = segment(s, table, decodes, x + done)
        run = min(run, most - done)
        total = run_seconds(fixed_s + value, slope, run)
        if now_s + total >= horizon_s and horizon_s < INF:
            run = iterations_until(fixed_s + value, slope, run, horizon_s - now_s)
            total = run_seconds(fixed_s + value, slope, run)
        now_s += total
        attention_s += run_seconds(value, slope, run)
        done += run
    return done, now_s, attention_s


@jit
def hidden_attention_s(s: State, group: int, lane: int, iterations: int) -> float:
    """Decode attention that a leap's attention seconds leave out because something else ran beside it."""
    table, row = s.group_i[group, TABLE], s.group_i[group, ROW0]
    decodes = s.lane_i[row, lane, STEP_DECODES]
    if s.scalars[table, OVERLAPPED] == 0 or decodes == 0 or not leaps(s, group, lane):
        return 0.0
    x, done, seconds = s.lane_i[row, lane, KV_SUM] / s.lane_i[row, lane, DECODES] + 1.0, 0, 0.0
    while done < iterations:
        value, slope, run = segment(s, table, decodes, x + done)
        run = min(run, iterations - done)
        first_s = decode_seconds(s, table, 0, decodes, x + done)
        last_s = decode_seconds(s, table, 0, decodes, x + done + (run - 1))
        seconds += 0.5 * run * (first_s + last_s) - run_seconds(value, slope, run)
        done += run
    return seconds


@jit
def record_leap(s: State, table: int, decodes: int, x: float, fixed_s: float, iterations: int, alive: int) -> None:
    """Count the gaps of the leap's iterations after its first, a token for each of the `alive` requests."""
    done = 1
    while done < iterations:
        value, slope, run = segment(s, table, decodes, x + done)
        run = min(run, iterations - done)
        record_run(s, fixed_s + value, slope, run, alive)
        done += run
