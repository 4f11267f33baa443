"""Metrics: each defined once, as vLLM's serving benchmark defines it, as functions of a Result's columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_TAIL_SAMPLES = 10  # a percentile with fewer requests beyond it is flagged


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Per-request limits in seconds (0: none) and the share of requests that must meet all of them."""

    ttft_s: float = 0.0
    tpot_s: float = 0.0
    e2e_s: float = 0.0
    attainment: float = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One simulated (or measured) run. Columns of shape [n], in request order.

    sent_s, first_token_s, finish_s: seconds on the run's clock (NaN: refused, the prompt can never fit).
    scheduled_s: first time in a step. cached_tokens: prompt tokens found in the prefix cache. replica: which one.
    preemptions: how often the request was preempted.
    itl_bins float64[b+1], itl_counts float64[b]: weighted histogram of all inter-token gaps (0.5% wide bins).
    steps: columns of step (or leap) records by name, empty unless asked for: replica, start_s, end_s, iterations,
    prefill_tokens, decode_requests, kv_blocks, waiting, running.
    energy_j, busy_s, num_steps, devices: of the whole cluster. kv_blocks: capacity of each replica.
    """

    sent_s: NDArray[np.float64]
    scheduled_s: NDArray[np.float64]
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    input_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    cached_tokens: NDArray[np.int32]
    replica: NDArray[np.int32]
    preemptions: NDArray[np.int32]
    itl_bins: NDArray[np.float64]
    itl_counts: NDArray[np.float64]
    steps: dict[str, NDArray[np.float64]]
    energy_j: float
    busy_s: float
    num_steps: int
    devices: int
    kv_blocks: tuple[int, ...]
    warmup_requests: int = 0
