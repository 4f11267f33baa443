"""Workloads made from workloads: time scaling, thinning, head, warm-up, samples, context limit, new arrivals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.traces.arrivals import arrivals
from simtool.traces.prefixes import ragged_positions
from simtool.traces.rows import session_root, take
from simtool.workload import Workload


def mean_rate(workload: Workload) -> float:
    """Requests per second: n - 1 gaps over the time from the first to the last arrival; inf when all come at once."""
    duration_s = float(workload.arrival_s[-1] - workload.arrival_s[0])
    return (workload.num_requests - 1) / duration_s if duration_s > 0 else math.inf


def time_scale(workload: Workload, factor: float) -> Workload:
    """Arrival times and think times multiplied by factor (0.5: twice the rate)."""
    if not 0 < factor < math.inf:
        raise InputError(f"time_scale = {factor}", "must be above 0 and finite")
    return replace(workload, arrival_s=workload.arrival_s * factor, think_s=workload.think_s * factor)


def scale_to_rate(workload: Workload, request_rate: float) -> Workload:
    """Stretch or squeeze time so that the mean rate becomes request_rate; the shape of the arrivals stays."""
    if not 0 < request_rate < math.inf:
        raise InputError(f"request_rate = {request_rate}", "must be above 0 requests/s and finite")
    rate = mean_rate(workload)
    if math.isinf(rate):
        raise InputError(
            workload.source or "workload", "all requests arrive at once: there is no rate to scale", RETIME
        )
    return time_scale(workload, rate / request_rate)


RETIME = "give the requests new arrival times with a request rate and a burstiness"


def retime(workload: Workload, request_rate: float, burstiness: float, rng: np.random.Generator) -> Workload:
    """The same requests in the same order with new arrival times (see `arrivals`); for traces that have none.

    Sessions keep their shape: each starts at a new time, at request_rate x sessions / requests.
    """
    root = session_root(workload)
    is_root = root == np.arange(workload.num_requests)
    starts = np.zeros(workload.num_requests)
    share = np.count_nonzero(is_root) / workload.num_requests
    starts[is_root] = arrivals(int(np.count_nonzero(is_root)), request_rate * share, burstiness, rng)
    offset_s = workload.arrival_s - workload.arrival_s[root]
    moved = replace(workload, arrival_s=starts[root] + offset_s)
    return take(moved, np.argsort(moved.arrival_s, kind="stable")) if len(workload.follows) else moved


def subsample(workload: Workload, share: float, rng: np.random.Generator) -> Workload:
    """Keep each session (or single request) with probability `share`: thinning, so a Poisson process stays one."""
    if not 0 < share <= 1:
        raise InputError(f"share = {share}", "must be above 0 and at most 1")
    kept = (rng.random(workload.num_requests) < share)[session_root(workload)]
    return _chosen(workload, kept, f"a share of {share:g} keeps no request")


def first_requests(workload: Workload, num_prompts: int) -> Workload:
    """The first num_prompts requests (all of them if there are fewer)."""
    if num_prompts < 1:
        raise InputError(f"num_prompts = {num_prompts}", "must be at least 1")
    if num_prompts <= workload.warmup_requests:
        raise InputError(f"num_prompts = {num_prompts}", f"leaves only warm-up ({workload.warmup_requests} requests)")
    if num_prompts >= workload.num_requests:
        return workload
    return take(workload, np.arange(num_prompts))


def with_warmup(workload: Workload, *, requests: int = 0, seconds: float = 0.0) -> Workload:
    """Mark the first `requests`, and all that arrive in the first `seconds`, as warm-up: simulated, not counted."""
    if requests < 0 or not 0 <= seconds < math.inf:
        raise InputError(f"warm-up of {requests} requests, {seconds} s", "must be at least 0")
    early = int(np.searchsorted(workload.arrival_s, workload.arrival_s[0] + seconds)) if seconds else 0
    warmup = max(requests, early)
    if warmup >= workload.num_requests:
        raise InputError(f"warm-up of {warmup} requests", f"leaves none of the {workload.num_requests} to count")
    return replace(workload, warmup_requests=warmup)


def with_samples(workload: Workload, n: int) -> Workload:
    """Each request n times, one a sample of its prompt: the same arrival and lengths, and every full block shared.

    So vLLM V1 runs n > 1 (v1/engine/parallel_sampling.py): n requests that find the prompt in the prefix cache.
    Raises InputError for sessions and closed loops, which go on when all samples of a prompt have ended.
    """
    if n < 1:
        raise InputError(f"n = {n}", "must be at least 1")
    if n == 1:
        return workload
    if workload.max_concurrency or np.any(workload.follows >= 0):
        what = "max_concurrency" if workload.max_concurrency else "turns"
        rule = "what waits for all samples of a prompt is not modelled"
        raise InputError(f"n = {n} with {what}", rule, "leave one of them out")
    ids, offsets = _whole_prompts(workload)
    whole = replace(workload, prefix_ids=ids, prefix_offsets=offsets)
    rows = np.repeat(np.arange(workload.num_requests), n)
    return replace(take(whole, rows), source=f"{workload.source}; {n} samples of each prompt".lstrip("; "))


def _whole_prompts(workload: Workload) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(ids, offsets): each request's prefix blocks, then blocks of its own up to the last full one of its prompt."""
    count = workload.num_requests
    old = workload.prefix_offsets if len(workload.prefix_offsets) else np.zeros(count + 1, np.int64)
    shared, full = np.diff(old), workload.input_tokens.astype(np.int64) // workload.prefix_block_tokens
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(full)])
    position = ragged_positions(full)
    is_shared = position < np.repeat(shared, full)
    ids = np.empty(len(position), np.int64)
    ids[is_shared] = workload.prefix_ids
    first_own = int(workload.prefix_ids.max()) + 1 if len(workload.prefix_ids) else 0
    ids[~is_shared] = first_own + np.arange(np.count_nonzero(~is_shared))
    return ids.astype(np.int32), offsets if len(ids) else offsets[:0]


def fit_context(workload: Workload, max_model_len: int, policy: Literal["drop", "clip"]) -> Workload:
    """Make every request fit input + output <= max_model_len: by dropping those that do not, or by clipping them."""
    if policy == "clip":
        return clip_to_context(workload, max_model_len)
    if policy == "drop":
        return drop_beyond_context(workload, max_model_len)
    raise InputError(policy, "unknown policy for prompts beyond the context", "drop or clip")


def drop_beyond_context(workload: Workload, max_model_len: int) -> Workload:
    """Drop requests with input + output > max_model_len, and all that follow them in their session."""
    kept = _total(workload) <= max_model_len
    if not kept.all() and len(workload.follows):
        for row in np.flatnonzero(workload.follows >= 0):  # in order, so a predecessor is decided already
            kept[row] &= kept[workload.follows[row]]
    return _chosen(workload, kept, f"no request fits a context of {max_model_len} tokens")


def clip_to_context(workload: Workload, max_model_len: int) -> Workload:
    """Clip to the context: first the output (to at least 1 token), then the prompt's end, with its prefix blocks."""
    if max_model_len < 2:
        raise InputError(f"max_model_len = {max_model_len}", "must be at least 2", "a prompt and an answer of a token")
    beyond = _total(workload) > max_model_len
    if not beyond.any():
        return workload
    inputs = np.minimum(workload.input_tokens, max_model_len - 1).astype(np.int32)
    outputs = np.minimum(workload.output_tokens, max_model_len - inputs).astype(np.int32)
    note = f"{workload.source}; {np.count_nonzero(beyond)} requests clipped to {max_model_len} tokens".lstrip("; ")
    clipped = replace(workload, input_tokens=inputs, output_tokens=outputs, source=note)
    if not len(workload.prefix_offsets):
        return clipped
    counts = np.diff(workload.prefix_offsets)
    kept = np.minimum(counts, inputs // workload.prefix_block_tokens)
    inside = np.arange(len(workload.prefix_ids)) - np.repeat(workload.prefix_offsets[:-1], counts)
    ids = workload.prefix_ids[inside < np.repeat(kept, counts)]
    clipped = replace(clipped, prefix_ids=ids, prefix_offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)]))
    return take(clipped, np.arange(workload.num_requests))  # makes the ids dense again


def _total(workload: Workload) -> NDArray[np.int64]:
    """Input and output tokens together, wide enough for their sum."""
    return workload.input_tokens.astype(np.int64) + workload.output_tokens


def _chosen(workload: Workload, kept: NDArray[np.bool_], nothing: str) -> Workload:
    """The kept rows; the source says how many went."""
    if kept.all():
        return workload
    if not kept.any():
        raise InputError(workload.source or "workload", nothing)
    dropped = int(np.count_nonzero(~kept))
    chosen = take(workload, np.flatnonzero(kept))
    return replace(chosen, source=f"{workload.source}; {dropped} requests left out".lstrip("; "))
