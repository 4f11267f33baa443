"""Workload: requests as columns. Readers and generators live in `simtool/traces/`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """n requests, one row each, sorted by arrival.

    arrival_s float64[n]: seconds from the start (all 0 under a closed loop or for an offline batch).
    input_tokens, output_tokens int32[n], both >= 1.
    priority int32[n]: smaller goes first (vLLM's `priority`); empty: all equal.
    prefix_ids int32[m] and prefix_offsets int64[n+1]: request i's prompt starts with the blocks
    prefix_ids[prefix_offsets[i]:prefix_offsets[i+1]] of prefix_block_tokens tokens each; equal ids = equal content
    *and* equal history; ids are dense (0..max). Empty: no shared prefixes.
    follows int32[n] and think_s float64[n]: request i arrives think_s after request follows[i] finishes
    (-1: arrives at arrival_s). Empty: none. A predecessor has a smaller index. The arrival_s of a request that
    follows another only orders it (the earliest it could come if its predecessors took no time).
    max_concurrency: closed loop, the next request is sent when one finishes (0: open loop).
    warmup_requests: the first so many are simulated but not counted.
    expert_routing: which experts its tokens go to, where experts are offloaded: a routing source or the file of a
    recorded trace (docs/routing.md); empty: uniform.
    """

    arrival_s: NDArray[np.float64]
    input_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    priority: NDArray[np.int32]
    prefix_ids: NDArray[np.int32]
    prefix_offsets: NDArray[np.int64]
    prefix_block_tokens: int = 16
    follows: NDArray[np.int32]
    think_s: NDArray[np.float64]
    max_concurrency: int = 0
    warmup_requests: int = 0
    source: str = ""
    expert_routing: str = ""

    @property
    def num_requests(self) -> int:
        """Rows."""
        return len(self.arrival_s)


def make_workload(
    arrival_s: NDArray[np.float64],
    input_tokens: NDArray[np.int32],
    output_tokens: NDArray[np.int32],
    *,
    max_concurrency: int = 0,
    source: str = "",
) -> Workload:
    """A workload of independent requests: no prefixes, no priorities, no sessions."""
    return Workload(
        arrival_s=arrival_s,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        priority=np.empty(0, np.int32),
        prefix_ids=np.empty(0, np.int32),
        prefix_offsets=np.empty(0, np.int64),
        follows=np.empty(0, np.int32),
        think_s=np.empty(0, np.float64),
        max_concurrency=max_concurrency,
        source=source,
    )


def check_workload(workload: Workload) -> None:
    """Raise InputError unless the columns keep what Workload promises (shapes, ranges, order)."""
    n = workload.num_requests
    if n == 0:
        raise InputError(workload.source or "workload", "it has no requests", "ask for at least one")
    for name, empty_allowed in _COLUMNS.items():
        length = len(getattr(workload, name))
        if length != n and not (empty_allowed and length == 0):
            raise InputError(f"{name} of {length} rows", f"must have one row for each of the {n} requests")
    if len(workload.follows) != len(workload.think_s):
        raise InputError("follows and think_s", "both or neither must be given")
    arrival_s = workload.arrival_s
    if not np.all(np.isfinite(arrival_s)) or np.any(arrival_s < 0):
        raise InputError("arrival_s", "must be finite and at least 0 seconds")
    if np.any(arrival_s[1:] < arrival_s[:-1]):
        raise InputError("arrival_s", "must be sorted")
    for name in ("input_tokens", "output_tokens"):
        worst = int(np.argmin(getattr(workload, name)))
        if getattr(workload, name)[worst] < 1:
            raise InputError(f"request {worst}: {name} = {getattr(workload, name)[worst]}", "must be at least 1")
    _check_sessions(workload)
    _check_prefixes(workload)
    if workload.max_concurrency < 0:
        raise InputError(f"max_concurrency = {workload.max_concurrency}", "must be at least 0")
    if not 0 <= workload.warmup_requests < n:
        rule = f"must be at least 0 and leave some of the {n} requests to count"
        raise InputError(f"warmup_requests = {workload.warmup_requests}", rule)


_COLUMNS = {
    "arrival_s": False,
    "input_tokens": False,
    "output_tokens": False,
    "priority": True,
    "follows": True,
    "think_s": True,
}


def _check_sessions(workload: Workload) -> None:
    """Predecessors come first; think times are finite and not negative."""
    follows, think_s = workload.follows, workload.think_s
    late = np.flatnonzero((follows >= np.arange(len(follows))) | (follows < -1))
    if len(late):
        row = int(late[0])
        raise InputError(f"request {row} follows {follows[row]}", "a predecessor must be an earlier request")
    if not np.all(np.isfinite(think_s)) or np.any(think_s < 0):
        raise InputError("think_s", "must be finite and at least 0 seconds")


def _check_prefixes(workload: Workload) -> None:
    """Offsets delimit the ids; no prompt is shorter than its prefix blocks."""
    ids, offsets, block = workload.prefix_ids, workload.prefix_offsets, workload.prefix_block_tokens
    if block < 1:
        raise InputError(f"prefix_block_tokens = {block}", "must be at least 1")
    if not len(offsets) and not len(ids):
        return
    counts = np.diff(offsets)
    if len(offsets) != workload.num_requests + 1 or offsets[0] != 0 or offsets[-1] != len(ids) or np.any(counts < 0):
        raise InputError("prefix_offsets", "must run from 0 to the number of prefix ids, one step a request")
    long = np.flatnonzero(counts * block > workload.input_tokens)
    if len(long):
        row = int(long[0])
        rule = f"its prompt of {workload.input_tokens[row]} tokens is shorter than its prefix blocks"
        raise InputError(f"request {row}: {counts[row]} prefix blocks of {block} tokens", rule)
    if len(ids) and ids.min() < 0:
        raise InputError("prefix_ids", "must be at least 0")
