"""Inter-token gaps, as a weighted histogram with bins 0.5% wide: a leap adds a run of tokens at once."""

from __future__ import annotations

import math

from simtool.simulator.jit import jit
from simtool.simulator.state import ITL_BINS, ITL_LOW_S, ITL_RATIO, JOINS, State


@jit
def gap_bin(gap_s: float) -> int:
    """The bin of a gap."""
    if gap_s <= ITL_LOW_S:
        return 0
    return min(int(math.log(gap_s / ITL_LOW_S) / math.log(ITL_RATIO)), ITL_BINS - 1)


@jit
def record_gap(s: State, gap_s: float, tokens: int) -> None:
    """`tokens` tokens came `gap_s` after the one before them."""
    if tokens > 0:
        s.itl[gap_bin(gap_s)] += tokens


@jit
def record_run(s: State, first_s: float, slope_s: float, iterations: int, tokens: int) -> None:
    """`iterations` gaps that grow by `slope_s` each, `tokens` tokens each."""
    last_s = first_s + slope_s * (iterations - 1)
    i = 0
    while i < iterations:
        gap_s = first_s + slope_s * i
        here = gap_bin(gap_s)
        if here == gap_bin(last_s):
            s.itl[here] += tokens * (iterations - i)
            return
        edge_s = ITL_LOW_S * ITL_RATIO ** (here + 1 if slope_s > 0 else here)
        count = min(max(int(abs((edge_s - gap_s) / slope_s)) + 1, 1), iterations - i)
        s.itl[here] += tokens * count
        i += count


@jit
def record_first(s: State, row: int, lane: int, decodes: int, end_s: float) -> None:
    """The first iteration of a leap: requests that have just joined count from their own first token."""
    continuing = decodes
    for j in range(s.lane_i[row, lane, JOINS]):
        tokens = s.join_n[row, lane, j]
        record_gap(s, end_s - s.join_s[row, lane, j], tokens)
        continuing -= tokens
    s.lane_i[row, lane, JOINS] = 0
    record_gap(s, end_s - s.lane_f[row, lane], continuing)
