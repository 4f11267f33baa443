"""Workload: requests as columns. Readers and generators live in `simtool/traces/`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    (-1: arrives at arrival_s). Empty: none. A predecessor has a smaller index.
    max_concurrency: closed loop, the next request is sent when one finishes (0: open loop).
    warmup_requests: the first so many are simulated but not counted.
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
