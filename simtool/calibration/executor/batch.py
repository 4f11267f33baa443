"""Step batches: what a scheduler hands to a runner, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One request's part of a step.

    tokens int64[new]: token ids whose KV is written at positions context..context+new-1; blocks
    int64[ceil((context+new)/block_size)]: its block table (physical KV block ids); samples: whether the last token's
    logits are sampled (greedy).
    """

    request: int
    tokens: NDArray[np.int64]
    context: int
    blocks: NDArray[np.int64]
    samples: bool

    @property
    def new(self) -> int:
        """Tokens of this step."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """One data-parallel rank's step: decodes (each with exactly one token) first, then prefill chunks."""

    decodes: tuple[Slot, ...] = ()
    prefills: tuple[Slot, ...] = ()

    @property
    def slots(self) -> tuple[Slot, ...]:
        """All slots, in the order in which their tokens stand in the step."""
        return self.decodes + self.prefills

    @property
    def tokens(self) -> int:
        """Tokens of the step."""
        return sum(slot.new for slot in self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """tokens: sampled ids of the slots that sample, decodes first, in order, one array a data-parallel rank.

    seconds: of the whole step. family_s: operator family → seconds (empty where not timed); what is left of `seconds`
    is the host's. host_s: seconds of preparing inputs on the host (before the device work), part of `seconds`.
    routing: int16[tokens, layers, top_k], experts of the step's tokens, where it was asked for. experts: int64[layers,
    2], of those that the step needed how many were on the device and how many were copied, where they are offloaded.
    """

    tokens: tuple[NDArray[np.int64], ...]
    seconds: float
    host_s: float
    family_s: Mapping[str, float]
    routing: NDArray[np.int16] | None = None
    experts: NDArray[np.int64] | None = None
