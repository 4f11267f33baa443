"""OffloadedExperts: all of a layer's experts in host memory, some of them in buffers on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from simtool.calibration.executor.timer import FamilyTimer
from simtool.calibration.kernels.experts import looped_experts, one_expert
from simtool.errors import SimtoolError
from simtool.plan import ExpertOffload
from simtool.simulator.offload.cache import ExpertCache
from simtool.simulator.offload.policy import lru
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.store import expert_store


class OffloadedExperts:
    """Who stays is the simulator's own decision (ExpertCache). hits, misses: of experts that a step needed.

    On a GPU the next missing expert is copied on a stream of its own while the one before it computes; on a CPU the
    buffers are memory of their own and a copy takes the time that it takes.
    """

    def __init__(self, up: torch.Tensor, down: torch.Tensor, offload: ExpertOffload, device: str) -> None:
        self._host = up, down
        kept, experts = min(offload.slots, len(up)), len(up)
        self._made = (
            expert_store(1, experts, 1, kept),
            lru(evict="lfu" if offload.policy == "lfu" else "lru"),
            Prices(dense_s=np.zeros((1, 1)), expert_s=by_tokens(0.0, 0.0), load_s=np.zeros(experts)),
        )
        self._buffers = tuple(
            torch.empty((kept, *part.shape[1:]), dtype=part.dtype, device=device) for part in self._host
        )
        self._stream = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]
        self.forget()

    def forget(self) -> None:
        """No expert is on the device, and none has been needed."""
        self._cache = ExpertCache(*self._made)
        self._free = list(range(len(self._buffers[0])))
        self._place: dict[int, int] = {}  # expert -> buffer
        self._missing: list[int] = []
        self._stays = self._cache.held()  # who is here after this step
        self._leaving: set[int] = set()  # experts in buffers that need not stay, and are not needed any more
        self._copied: dict[int, torch.cuda.Event] = {}

    @property
    def hits(self) -> int:
        """Of all steps."""
        return self._cache.hits

    @property
    def misses(self) -> int:
        """Of all steps."""
        return self._cache.misses

    def run(self, x: torch.Tensor, chosen: torch.Tensor, weight: torch.Tensor, timer: FamilyTimer) -> torch.Tensor:
        """As ExpertStore says; copies are timed apart from the experts."""

        def one(expert: int, rows: torch.Tensor) -> torch.Tensor:
            place = self._loaded(expert, timer)
            found = one_expert(rows, self._buffers[0][place], self._buffers[1][place])
            if not self._stays[expert]:
                self._leaving.add(expert)
            if self._stream is not None and self._missing and (self._free or self._leaving):
                self._load(self._missing.pop(0), timer)
            return found

        return timer.run("moe", looped_experts, x, chosen, weight, len(self._host[0]), one, None, self._order)

    def _order(self, busy: Sequence[int]) -> Sequence[int]:
        """Experts that are here run first, so that none is evicted before it ran."""
        decided = self._cache.visit(0, busy)
        self._stays = self._cache.held()
        self._missing = list(decided.loads)
        wanted = {*decided.hits, *decided.loads}
        self._leaving = {expert for expert in self._place if expert not in wanted and not self._stays[expert]}
        return [*decided.hits, *decided.loads]

    def _loaded(self, expert: int, timer: FamilyTimer) -> int:
        if expert not in self._place:
            self._missing.remove(expert)
            self._load(expert, timer)
        if expert in self._copied:
            torch.cuda.current_stream().wait_event(self._copied.pop(expert))
        return self._place[expert]

    def _load(self, expert: int, timer: FamilyTimer) -> None:
        place = self._room()
        self._place[expert] = place
        if self._stream is None:
            timer.run("copies", self._copy, expert, place)
            return
        self._stream.wait_stream(torch.cuda.current_stream())  # what computes with the evicted expert ends first
        with torch.cuda.stream(self._stream):
            self._copy(expert, place)
            self._copied[expert] = self._stream.record_event()

    def _room(self) -> int:
        """A buffer that is free, or of an expert that need not stay."""
        if self._free:
            return self._free.pop(0)
        if not self._leaving:
            raise SimtoolError("offloaded experts: all buffers hold experts that are to stay")
        return self._place.pop(self._leaving.pop())

    def _copy(self, expert: int, place: int) -> None:
        for buffer, host in zip(self._buffers, self._host, strict=True):
            buffer[place].copy_(host[expert], non_blocking=True)
