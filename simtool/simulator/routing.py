"""Routers: which row (scheduler) takes a request, decided on the state at its arrival."""

from __future__ import annotations

from simtool.simulator.jit import jit, jit_entry
from simtool.simulator.kvcache import cached_nodes
from simtool.simulator.state import BLOCK_SIZE, INPUT, OUTSTANDING, PREFIX_BLOCKS, ROW0, ROWS, State

ROUND_ROBIN, LEAST_OUTSTANDING, PREFIX_AWARE = range(3)
ROUTERS = {"round_robin": ROUND_ROBIN, "least_outstanding": LEAST_OUTSTANDING, "prefix_aware": PREFIX_AWARE}

# Cache-aware routing as the SGLang router does it, with its first release's defaults (sgl-router 0.1).
CACHE_THRESHOLD = 0.5
BALANCE_ABS_THRESHOLD = 32
BALANCE_REL_THRESHOLD = 1.0001


@jit
def spread_row(s: State, index: int) -> int:
    """Row of the index-th request under round robin: over the groups first, then over the rows of a group."""
    groups = s.group_i.shape[0]
    group = index % groups
    return int(s.group_i[group, ROW0] + (index // groups) % s.group_i[group, ROWS])


@jit
def least_outstanding(s: State) -> int:
    """The row with the fewest requests that are waiting or running; the first of equals."""
    best = 0
    for row in range(1, s.row_i.shape[0]):
        if s.row_i[row, OUTSTANDING] < s.row_i[best, OUTSTANDING]:
            best = row
    return best


@jit
def prefix_aware(s: State, req: int) -> int:
    """The row with the longest cached prefix if it is long enough and the load is balanced, else the least loaded."""
    least = least_outstanding(s)
    low, high = s.row_i[least, OUTSTANDING], s.row_i[least, OUTSTANDING]
    for row in range(s.row_i.shape[0]):
        high = max(high, s.row_i[row, OUTSTANDING])
    if high - low > BALANCE_ABS_THRESHOLD and high > BALANCE_REL_THRESHOLD * low:
        return least
    best, longest = least, 0
    for group in range(s.group_i.shape[0]):
        tokens = s.config[group, PREFIX_BLOCKS] * s.config[group, BLOCK_SIZE]
        for row in range(s.group_i[group, ROW0], s.group_i[group, ROW0] + s.group_i[group, ROWS]):
            matched = cached_nodes(s, group, row, req) * tokens
            if matched > longest:
                best, longest = row, matched
    return best if longest > CACHE_THRESHOLD * s.req_i[req, INPUT] else least


@jit_entry
def choose_row(s: State, router: int, req: int, index: int) -> int:
    """The row that takes request `req`, the index-th to be sent."""
    if s.row_i.shape[0] == 1:
        return 0
    if router == ROUND_ROBIN:
        return spread_row(s, index)
    if router == LEAST_OUTSTANDING:
        return least_outstanding(s)
    return prefix_aware(s, req)


@jit_entry
def group_of(s: State, row: int) -> int:
    """The group that a row belongs to."""
    group = 0
    while row >= s.group_i[group, ROW0] + s.group_i[group, ROWS]:
        group += 1
    return group
