"""What a trace shows: unique experts a batch, imbalance, hot experts, reuse by the next token, layer correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.routing.trace import RoutingTrace, loads

_BATCHES_AT_ONCE = 2**24  # loads held at once
_PAIRS_OF_TOKENS = 100_000  # tokens that the correlation of layers is taken from, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLoads:
    """Over the batches of a trace, for each layer, float64[layers].

    unique: experts that a batch needs, and unique_error the standard error of that mean. max_expert: tokens of the
    busiest expert. max_rank: assignments of the busiest rank (experts are dealt to ranks in blocks). imbalance: the
    busiest rank's over the mean rank's, which is what an expert-parallel step waits for.
    """

    batches: int
    unique: NDArray[np.float64]
    unique_error: NDArray[np.float64]
    max_expert: NDArray[np.float64]
    max_rank: NDArray[np.float64]
    imbalance: NDArray[np.float64]


def batch_loads(trace: RoutingTrace, batch: NDArray[np.int64], *, ranks: int = 1) -> BatchLoads:
    """batch: int64[tokens], the number of each row's batch; rows of -1 are left out. Raises InputError."""
    kept = np.flatnonzero(batch >= 0)
    if not len(kept):
        raise InputError("0 batches", "the trace has too few tokens of one kind for a batch", "a smaller --batch")
    if ranks < 1 or trace.num_experts % ranks:
        raise InputError(ranks, f"expert-parallel ranks must divide {trace.num_experts} experts")
    order = kept[np.argsort(batch[kept], kind="stable")]
    _, number = np.unique(batch[order], return_inverse=True)
    batches = int(number[-1]) + 1
    size = max(1, _BATCHES_AT_ONCE // (len(trace.layers) * trace.num_experts))
    parts = []
    for first in range(0, batches, size):
        count = min(size, batches - first)
        rows = slice(*np.searchsorted(number, (first, first + count)))
        parts.append(_shown(loads(trace.experts[order[rows]], number[rows] - first, count, trace.num_experts), ranks))
    unique, expert, rank, ratio = (np.concatenate([part[place] for part in parts]) for place in range(4))
    error = unique.std(axis=0, ddof=1) / np.sqrt(batches) if batches > 1 else np.full(len(trace.layers), np.nan)
    return BatchLoads(
        batches=batches,
        unique=unique.mean(axis=0),
        unique_error=error,
        max_expert=expert.mean(axis=0),
        max_rank=rank.mean(axis=0),
        imbalance=ratio.mean(axis=0),
    )


def decode_batches(trace: RoutingTrace, size: int) -> NDArray[np.int64]:
    """A batch number for each row, int64[tokens]: `size` decoding requests of one step together, others -1.

    Requests of a step that do not fill a batch are left out. A trace without decodes is cut by its steps' prompts.
    """
    rows = np.flatnonzero(~trace.prefill) if not trace.prefill.all() else np.arange(trace.tokens)
    rows = rows[np.argsort(trace.step[rows], kind="stable")]
    _, first, count = np.unique(trace.step[rows], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(first, count)
    whole = np.repeat(count // size, count)
    earlier = np.repeat(np.cumsum(count // size) - count // size, count)
    batch = np.full(trace.tokens, -1, np.int64)
    batch[rows] = np.where(place // size < whole, earlier + place // size, -1)
    return batch


def popularity(trace: RoutingTrace) -> NDArray[np.float64]:
    """Share of the tokens that choose each expert, float64[layers, experts]; rows add up to top_k."""
    counts = loads(trace.experts, np.zeros(trace.tokens, np.int64), 1, trace.num_experts)[0]
    return np.asarray(counts / max(trace.tokens, 1))


def window_loads(trace: RoutingTrace, windows: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The trace's steps cut into windows of equally many: (tokens of a mean step, steps of each).

    float64[windows, layers, experts] and int64[windows]. Raises InputError for more windows than steps.
    """
    numbers, place = np.unique(trace.step, return_inverse=True)
    if not 1 <= windows <= len(numbers):
        raise InputError(f"{windows} windows", f"of a trace of {len(numbers):,} steps must be from 1 to that many")
    window = np.arange(len(numbers)) * windows // len(numbers)
    steps = np.bincount(window, minlength=windows)
    counts = loads(trace.experts, window[place], windows, trace.num_experts)
    return np.asarray(counts / steps[:, None, None]), steps.astype(np.int64)


def reuse(trace: RoutingTrace, *, lag: int = 1) -> NDArray[np.float64]:
    """Share of a token's experts that the sequence's token `lag` places before also had, float64[layers].

    NaN where no sequence has two such tokens.
    """
    later = np.arange(lag, trace.tokens)
    later = later[
        (trace.sequence[later] == trace.sequence[later - lag])
        & (trace.position[later] == trace.position[later - lag] + lag)
    ]
    if not len(later):
        return np.full(len(trace.layers), np.nan)
    same = trace.experts[later, :, :, None] == trace.experts[later - lag, :, None, :]
    return np.asarray(same.any(axis=3).mean(axis=(0, 2)))


def layer_pairs(trace: RoutingTrace, *, distance: int = 1, same_rank: bool = False) -> NDArray[np.float64]:
    """Joint shares of (expert of layer l, expert of layer l + distance), float64[layers - distance, E, E].

    All pairs of a token's choices, or only those of the same rank, as the OLMoE authors count. Each adds up to 1.
    """
    experts, number = trace.experts[:_PAIRS_OF_TOKENS].astype(np.int64), trace.num_experts
    tables = []
    for layer in range(len(trace.layers) - distance):
        one, other = experts[:, layer], experts[:, layer + distance]
        joint = one * number + other if same_rank else one[:, :, None] * number + other[:, None, :]
        tables.append(np.bincount(joint.ravel(), minlength=number * number).reshape(number, number))
    if not tables:
        return np.zeros((0, number, number))
    found = np.stack(tables).astype(np.float64)
    return np.asarray(found / np.maximum(found.sum(axis=(1, 2), keepdims=True), 1.0))


def transitions(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(expert of the later layer given one of the earlier), float64[..., E, E], from joint shares; rows add up to 1.

    An expert that was never chosen says nothing: its row is the later layer's popularity.
    """
    rows = pairs.sum(axis=-1, keepdims=True)
    return np.where(rows > 0, pairs / np.where(rows > 0, rows, 1.0), pairs.sum(axis=-2, keepdims=True))


def correlation(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mutual information of joint shares [..., E, E] over the later layer's entropy, 0 (none) to 1, float64[...]."""
    earlier, later = pairs.sum(axis=-1, keepdims=True), pairs.sum(axis=-2, keepdims=True)
    apart = earlier * later
    shared = np.where(pairs > 0, pairs * np.log(np.where(pairs > 0, pairs, 1.0) / np.where(apart > 0, apart, 1.0)), 0)
    entropy = -np.where(later > 0, later * np.log(np.where(later > 0, later, 1.0)), 0).sum(axis=(-2, -1))
    return np.asarray(np.maximum(shared.sum(axis=(-2, -1)), 0.0) / np.maximum(entropy, 1e-12))


def _shown(counts: NDArray[np.int64], ranks: int) -> tuple[NDArray[np.float64], ...]:
    """Unique experts, busiest expert, busiest rank and its ratio: [batches, layers] of loads [..., experts]."""
    by_rank = counts.reshape(*counts.shape[:2], ranks, -1).sum(axis=3)
    busiest = by_rank.max(axis=2).astype(np.float64)
    return (
        (counts > 0).sum(axis=2).astype(np.float64),
        counts.max(axis=2).astype(np.float64),
        busiest,
        busiest / by_rank.mean(axis=2),
    )
