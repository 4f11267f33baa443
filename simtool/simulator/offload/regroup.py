"""Regrouping: tokens of two batches exchanged so that each needs fewer experts (ExpertFlow, arXiv 2410.17954)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def regrouped(experts: NDArray[np.int16], num_experts: int, sizes: tuple[int, int]) -> NDArray[np.int64]:
    """Which of two batches each token joins, int64[tokens] of 0 and 1, `sizes` of each: alike routes together.

    experts: int16[tokens, layers, top_k], the (predicted) routes of both batches' tokens. The first of each batch are
    the two tokens whose routes have least in common; the others, those first who prefer one side most, join the side
    whose experts so far hold more of their own, while it has room. Greedy: no bound is claimed, and the result may be
    worse than the order given (compare `unique_experts`).
    """
    tokens, layers, _ = experts.shape
    route = np.zeros((tokens, layers, num_experts), np.bool_)
    route[np.arange(tokens)[:, None, None], np.arange(layers)[None, :, None], experts] = True
    flat = route.reshape(tokens, -1)
    common = flat.astype(np.float32) @ flat.T.astype(np.float32)
    side = np.full(tokens, -1, np.int64)
    if tokens < 2 or min(sizes) == 0:
        return np.repeat([0, 1], sizes)
    seeds = np.unravel_index(np.argmin(common + np.eye(tokens) * common.max() * 2), common.shape)
    held, left = flat[list(seeds)].copy(), np.array(sizes) - 1
    side[list(seeds)] = 0, 1
    for _ in range(tokens - 2):
        free = np.flatnonzero(side < 0)
        shared = held.astype(np.float32) @ flat[free].T.astype(np.float32)  # [2, free]
        shared[left == 0] = -1.0
        pick = int(np.argmax(np.abs(shared[0] - shared[1])))
        joins = int(np.argmax(shared[:, pick]))
        side[free[pick]] = joins
        held[joins] |= flat[free[pick]]
        left[joins] -= 1
    return side


def unique_experts(experts: NDArray[np.int16], side: NDArray[np.int64], num_experts: int) -> int:
    """Experts that both batches need, over all layers: what is loaded where nothing stays."""
    layers = experts.shape[1]
    key = (side[:, None, None] * layers + np.arange(layers)[None, :, None]) * num_experts + experts
    return len(np.unique(key))
