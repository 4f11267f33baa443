"""Prompts of a workload as token ids: random, and equal where the workload says that prefixes are equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.workload import Workload

_NODE, _REQUEST = 0, 1  # apart, so that node 7 and request 7 do not share their text


def prompt_ids(workload: Workload, request: int, vocab_size: int, seed: int) -> NDArray[np.int64]:
    """int64[input_tokens]: the request's prefix blocks, each by its id alone, then tokens of its own."""
    parts = []
    if len(workload.prefix_offsets) > 1:
        first, last = workload.prefix_offsets[request : request + 2]
        size = workload.prefix_block_tokens
        parts = [_random(seed, _NODE, int(node), size, vocab_size) for node in workload.prefix_ids[first:last]]
    own = int(workload.input_tokens[request]) - sum(len(part) for part in parts)
    return np.concatenate([*parts, _random(seed, _REQUEST, request, own, vocab_size)])


def _random(seed: int, kind: int, index: int, count: int, vocab_size: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, kind, index)).integers(0, vocab_size, count)
