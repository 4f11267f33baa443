"""Choosing rows of a workload, with their prefix ids and the sessions they belong to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simtool.traces.prefixes import ragged_positions
from simtool.workload import Workload


def take(workload: Workload, rows: NDArray[np.int64]) -> Workload:
    """The workload of these rows, in this order (int64[k]).

    A request whose predecessor is not taken arrives at its own arrival_s. Warm-up rows stay warm-up only if they
    stay in front, so the count is kept as the number of leading taken rows that were warm-up.
    """
    empty = workload.prefix_offsets[:0]
    ids, offsets = workload.prefix_ids, empty
    if len(workload.prefix_offsets):
        ids, offsets = _taken_prefixes(workload, rows)
    follows = workload.follows
    if len(follows):
        position = np.full(workload.num_requests, -1, np.int32)
        position[rows] = np.arange(len(rows), dtype=np.int32)
        follows = np.where(follows[rows] >= 0, position[follows[rows]], -1).astype(np.int32)
    counted = np.flatnonzero(rows >= workload.warmup_requests)
    return replace(
        workload,
        arrival_s=workload.arrival_s[rows],
        input_tokens=workload.input_tokens[rows],
        output_tokens=workload.output_tokens[rows],
        priority=workload.priority[rows] if len(workload.priority) else workload.priority,
        prefix_ids=ids,
        prefix_offsets=offsets,
        follows=follows,
        think_s=workload.think_s[rows] if len(workload.think_s) else workload.think_s,
        warmup_requests=int(counted[0]) if len(counted) else len(rows),
    )


def _taken_prefixes(workload: Workload, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(ids made dense again, offsets) of the taken rows."""
    counts = np.diff(workload.prefix_offsets)[rows]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    ids = workload.prefix_ids[np.repeat(workload.prefix_offsets[:-1][rows], counts) + ragged_positions(counts)]
    if not len(ids):
        return np.empty(0, np.int32), np.empty(0, np.int64)
    used = np.zeros(int(ids.max()) + 1, np.int32)
    used[ids] = 1
    return (np.cumsum(used, dtype=np.int32) - 1)[ids], offsets


def session_root(workload: Workload) -> NDArray[np.int64]:
    """The first request of each request's session (itself where it follows none), int64[n]."""
    root = np.arange(workload.num_requests, dtype=np.int64)
    if not len(workload.follows):
        return root
    root = np.where(workload.follows >= 0, workload.follows, root)
    while True:  # pointer doubling: as many rounds as log2 of the longest session
        further = root[root]
        if np.array_equal(further, root):
            return root
        root = further
