"""synthesise: a workload from a few numbers: arrivals, lengths, shared prefixes, sessions, priorities."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.traces.arrivals import arrivals
from simtool.traces.lengths import Lengths, draw, parse_lengths
from simtool.traces.reading import read_trace
from simtool.traces.sessions import Sessions, SharedPrefixes, with_sessions, with_shared_prefixes
from simtool.traces.transform import clip_to_context
from simtool.workload import Workload, check_workload, make_workload


def synthesise(
    *,
    num_requests: int,
    input_len: str | int,
    output_len: str | int,
    rng: np.random.Generator,
    request_rate: float = math.inf,
    burstiness: float = 1.0,
    max_concurrency: int = 0,
    random_range_ratio: float = 0.0,
    prefixes: SharedPrefixes | None = None,
    sessions: Sessions | None = None,
    priority_shares: tuple[float, ...] = (),
    warmup_requests: int = 0,
    max_model_len: int = 0,
) -> Workload:
    """A workload of num_requests; the same arguments and generator state give the same workload.

    request_rate (requests/s; inf: all at 0) and burstiness as in `vllm bench serve` (see arrivals). max_concurrency
    caps the requests in flight. input_len and output_len: see parse_lengths; both `empirical:` of the same file draw
    whole rows. priority_shares[p]: weight of priority p. max_model_len > 0: see clip_to_context. Raises InputError.
    """
    _check_counts(num_requests, max_concurrency, warmup_requests)
    lengths = _lengths(num_requests, input_len, output_len, random_range_ratio, rng)
    if sessions is None:
        workload = make_workload(arrivals(num_requests, request_rate, burstiness, rng), *lengths)
    else:
        workload = with_sessions(*lengths, sessions, request_rate, burstiness, rng)
    if prefixes is not None:
        workload = with_shared_prefixes(workload, prefixes, rng)
    workload = replace(
        workload,
        priority=_priorities(num_requests, priority_shares, rng),
        max_concurrency=max_concurrency,
        warmup_requests=warmup_requests,
        source=f"synthetic: {num_requests} requests, input {input_len}, output {output_len}, rate {request_rate:g}/s",
    )
    check_workload(workload)
    return clip_to_context(workload, max_model_len) if max_model_len else workload


def _check_counts(num_requests: int, max_concurrency: int, warmup_requests: int) -> None:
    """Raise InputError for counts that mean nothing."""
    if num_requests < 1:
        raise InputError(f"num_prompts = {num_requests}", "must be at least 1")
    if max_concurrency < 0:
        raise InputError(f"max_concurrency = {max_concurrency}", "must be at least 0", "0: no limit")
    if not 0 <= warmup_requests < num_requests:
        rule = f"must be at least 0 and fewer than the {num_requests} requests"
        raise InputError(f"warmup_requests = {warmup_requests}", rule)


def _lengths(
    count: int, input_len: str | int, output_len: str | int, ratio: float, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(input, output) tokens; two empirical specifications of one file are drawn together."""
    inputs = parse_lengths(input_len, random_range_ratio=ratio)
    outputs = parse_lengths(output_len, random_range_ratio=ratio)
    if inputs.kind == outputs.kind == "empirical" and inputs.path == outputs.path:
        trace = read_trace(inputs.path)
        rows = rng.integers(0, trace.num_requests, count)
        return trace.input_tokens[rows], trace.output_tokens[rows]
    return _one_side(inputs, count, "input", rng), _one_side(outputs, count, "output", rng)


def _one_side(lengths: Lengths, count: int, side: str, rng: np.random.Generator) -> NDArray[np.int32]:
    """Lengths of one side."""
    if lengths.kind != "empirical":
        return draw(lengths, count, rng)
    trace = read_trace(lengths.path)
    values = trace.input_tokens if side == "input" else trace.output_tokens
    return values[rng.integers(0, trace.num_requests, count)]


def _priorities(count: int, shares: tuple[float, ...], rng: np.random.Generator) -> NDArray[np.int32]:
    """Priority p with probability shares[p] / sum; none when no shares are given."""
    if not shares:
        return np.empty(0, np.int32)
    weights = np.asarray(shares, np.float64)
    if not np.all(np.isfinite(weights)) or np.any(weights < 0) or not weights.sum() > 0:
        raise InputError(f"priority_shares = {shares}", "must be weights of at least 0, not all 0")
    bounds = np.cumsum(weights) / weights.sum()
    drawn = np.searchsorted(bounds, rng.random(count), side="right")
    return np.minimum(drawn, len(weights) - 1).astype(np.int32)
