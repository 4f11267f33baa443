"""Demand: the work that a workload brings to any plan, counted once, in the quantities that bounds are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.workload import Workload

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Totals over the counted requests (those after the warm-up), as the least any engine must do.

    decode_tokens: output tokens but each request's first, which its last prefill chunk yields. prefill_tokens: prompt
    tokens, less those that a prefix cache could hold. kv_reads: sum over decode tokens of the context they attend to.
    pairs: (query, key) pairs of the prefills. concurrency: requests that may be in flight at once (inf:
    open loop). A row a request, for bounds on single requests: offset_s from the first arrival (0 where it is not known
    beforehand), uncached, input and output tokens. For energy, which a run reports with its warm-up: counted_share of
    all output tokens, and worked_per_output: prefill and decode tokens worked on a output token, over all requests.
    """

    requests: int
    output_tokens: float
    decode_tokens: float
    prefill_tokens: float
    kv_reads: float
    pairs: float
    shortest_context: int
    longest_context: int
    concurrency: float
    offset_s: Array
    uncached: Array
    input: Array
    output: Array
    counted_share: float
    worked_per_output: float


def demand_of(workload: Workload, *, prefix_caching: bool) -> Demand:
    """The demand of a workload."""
    first = min(workload.warmup_requests, workload.num_requests - 1)
    inputs = workload.input_tokens[first:].astype(np.float64)
    outputs = workload.output_tokens[first:].astype(np.float64)
    in_prefix, repeated = _prefix_tokens(workload) if prefix_caching else (np.zeros(workload.num_requests),) * 2
    uncached = np.maximum(inputs - in_prefix[first:], 1.0)
    decodes = outputs - 1.0
    everything = np.maximum(workload.input_tokens - repeated, 1.0).sum() + (workload.output_tokens - 1.0).sum()
    all_outputs = float(workload.output_tokens.sum(dtype=np.int64))
    return Demand(
        requests=len(inputs),
        output_tokens=float(outputs.sum()),
        decode_tokens=float(decodes.sum()),
        prefill_tokens=float(np.maximum(inputs - repeated[first:], 1.0).sum()),
        # the k-th decode attends to at least input + k - 1 tokens, k = 1 … output - 1
        kv_reads=float((decodes * inputs + decodes * (decodes - 1.0) / 2.0).sum()),
        pairs=float((uncached * (uncached + 1.0) / 2.0).sum()),
        shortest_context=int(inputs.min()),
        longest_context=int((inputs + outputs).max()),
        concurrency=float(workload.max_concurrency) if workload.max_concurrency else float("inf"),
        offset_s=_offsets(workload, first),
        uncached=uncached,
        input=inputs,
        output=outputs,
        counted_share=float(outputs.sum()) / all_outputs,
        worked_per_output=float(everything) / all_outputs,
    )


def _offsets(workload: Workload, first: int) -> Array:
    """Seconds from the first counted arrival; 0 under a closed loop and for requests that follow others."""
    offset_s = np.maximum(workload.arrival_s[first:] - workload.arrival_s[first], 0.0)
    if workload.max_concurrency:
        return np.zeros_like(offset_s)
    if len(workload.follows):
        offset_s = np.where(workload.follows[first:] < 0, offset_s, 0.0)
    return np.asarray(offset_s)


def _prefix_tokens(workload: Workload) -> tuple[Array, Array]:
    """Prompt tokens of each request that lie in prefix blocks, and those in blocks that an earlier row has too.

    A block must be computed once by someone, so over all requests only repeats are saved; but who computes it depends
    on the schedule, so a single request may be spared all of them. Turns of a session may find their predecessor's
    generated tokens in the cache: there, first appearances count as repeats.
    """
    ids, offsets = workload.prefix_ids, workload.prefix_offsets
    if not len(ids):
        return np.zeros(workload.num_requests), np.zeros(workload.num_requests)
    spared = np.ones(len(ids))
    if not len(workload.follows):
        spared[np.unique(ids, return_index=True)[1]] = 0.0
    total = np.concatenate([[0.0], np.cumsum(spared)])
    repeated = (total[offsets[1:]] - total[offsets[:-1]]) * workload.prefix_block_tokens
    return np.diff(offsets) * float(workload.prefix_block_tokens), repeated
