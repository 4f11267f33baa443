"""A runner that holds token ids where a model holds keys and values: what it yields depends on every cached token."""

from __future__ import annotations

import zlib

import numpy as np

from simtool.calibration.executor.batch import StepBatch, StepOutcome

VOCAB = 997


def next_token(known: np.ndarray) -> int:
    """What "the model" says after these tokens."""
    return zlib.crc32(np.ascontiguousarray(known, np.int64).tobytes()) % VOCAB


def greedy(prompt: np.ndarray, count: int) -> list[int]:
    """The reference: no cache, no batch."""
    known = list(prompt)
    for _ in range(count):
        known.append(next_token(np.array(known)))
    return known[len(prompt) :]


class FakeRunner:
    """seconds_of: batches → seconds of the step."""

    def __init__(self, ranks: int, num_blocks: int, block_size: int, seconds_of=lambda batches: 0.01):
        self.caches = [np.full((num_blocks, block_size), -1, np.int64) for _ in range(ranks)]
        self.seconds_of = seconds_of
        self.flying: dict[int, tuple[StepBatch, ...]] = {}
        self.closed = False

    def submit(self, lane, batches):
        assert lane not in self.flying
        self.flying[lane] = tuple(batches)

    def collect(self, lane):
        batches = self.flying.pop(lane)
        tokens = tuple(self._rank(cache, batch) for cache, batch in zip(self.caches, batches, strict=True))
        return StepOutcome(tokens=tokens, seconds=self.seconds_of(batches), host_s=0.0, family_s={})

    def forget_experts(self):
        pass

    def close(self):
        self.closed = True

    def _rank(self, cache, batch):
        size = cache.shape[1]
        slots = (*batch.decodes, *batch.prefills)
        for slot in slots:  # all are written first, as in a layer
            for offset, token in enumerate(slot.tokens):
                place = slot.context + offset
                cache[slot.blocks[place // size], place % size] = token
        out = []
        for slot in slots:
            known = cache[slot.blocks].reshape(-1)[: slot.context + slot.new]
            assert (known >= 0).all(), "reads what nobody wrote"
            if slot.samples:
                out.append(next_token(known))
        return np.array(out, np.int64)
