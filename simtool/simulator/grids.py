"""Grids on which step costs are priced, and CUDA-graph padding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.plan import Scheduler

Array = NDArray[np.float64]

PREFILL_STEP = 0.25  # log2 distance of prefill knots: a rate that falls with q² is off by at most 1.5% between them
MAX_CAPTURE_TOKENS = 512
_KV_FIRST = 64  # first KV knot above 0, tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGrids:
    """Where the parts of a step are priced, increasing arrays: tokens of a rank and of all ranks, decodes (and sampled
    tokens), KV lengths, new tokens and cached tokens of a prefill chunk.
    """

    tokens: Array
    all_tokens: Array
    decodes: Array
    kv_knots: Array
    queries: Array
    contexts: Array


def step_grids(*, max_tokens: int, max_seqs: int, max_context: int, dp: int) -> StepGrids:
    """Grids that cover a scheduler of these limits."""
    return StepGrids(
        tokens=token_grid(max_tokens),
        all_tokens=token_grid(max_tokens * dp),
        decodes=count_grid(max_seqs),
        kv_knots=kv_grid(max_context),
        queries=log2_grid(max_tokens, PREFILL_STEP),
        contexts=log2_grid(max_context + 1, PREFILL_STEP) - 1.0,
    )


def capture_sizes(scheduler: Scheduler) -> tuple[int, ...]:
    """Token counts with a captured CUDA graph; empty without graphs.

    vLLM 0.19 by default: 1, 2, 4, then every 8 below 256, then every 16, up to min(2 max_num_seqs, 512) and no more
    than max_num_batched_tokens (vllm/config/vllm.py, `_set_cudagraph_sizes`; every engine prints the list).
    Raises InputError for sizes that are not positive.
    """
    if not scheduler.cuda_graphs:
        return ()
    if scheduler.cuda_graph_sizes:
        if min(scheduler.cuda_graph_sizes) < 1:
            raise InputError(scheduler.cuda_graph_sizes, "CUDA graph sizes must be positive")
        sizes = sorted(set(scheduler.cuda_graph_sizes))
    else:
        most = min(2 * scheduler.max_num_seqs, MAX_CAPTURE_TOKENS)
        sizes = [size for size in _default_sizes() if size <= most]
    return tuple(size for size in sizes if size <= scheduler.max_num_batched_tokens)


def _default_sizes() -> list[int]:
    return [1, 2, 4, *range(8, 256, 8), *range(256, MAX_CAPTURE_TOKENS + 1, 16)]


def padded_tokens(max_tokens: int, sizes: tuple[int, ...]) -> Array:
    """[max_tokens+1]: tokens that a step of T tokens computes: the next captured size, or T without a graph."""
    tokens = np.arange(max_tokens + 1)
    if not sizes:
        return tokens.astype(np.float64)
    place = np.searchsorted(sizes, tokens)
    reached = np.append(sizes, 0)[place]
    padded = np.where((place < len(sizes)) & (tokens > 0), reached, tokens)
    return padded.astype(np.float64)


def token_grid(max_tokens: int) -> Array:
    """Token counts to price, 1 … max_tokens: every small one, vLLM's capture sizes, then four an octave.

    Small ones count where no CUDA graph pads them: a CPU's GEMM turns from memory to compute between 8 and 16 rows.
    """
    small = [*range(1, 16), *range(16, 32, 2)]
    above = [64 * round(MAX_CAPTURE_TOKENS * 2 ** (step / 4) / 64) for step in range(1, 4 * 24)]
    points = [*small, *_default_sizes(), *above]
    return _upto(points, max_tokens)


def count_grid(max_count: int) -> Array:
    """Request counts to price, 1 … max_count: two an octave."""
    points = [1, 2, 3]
    while points[-1] < max_count:
        points.append(2 * points[-2])
    return _upto(points, max_count)


def kv_grid(max_context: int) -> Array:
    """KV lengths to price: 0 and two an octave from 64 to at least max_context."""
    octaves = max(1, math.ceil(2 * math.log2(max(max_context, 2 * _KV_FIRST) / _KV_FIRST)))
    return np.concatenate(([0.0], np.round(_KV_FIRST * 2 ** (np.arange(octaves + 1) / 2))))


def log2_grid(largest: float, step: float) -> Array:
    """2^0, 2^step, … up to at least `largest`; at least two points."""
    return np.asarray(2.0 ** (step * np.arange(max(1, math.ceil(math.log2(max(largest, 1.0)) / step)) + 1)))


def _upto(points: list[int], largest: int) -> Array:
    return np.array(sorted({point for point in points if point < largest} | {largest}), np.float64)
