"""OffloadedExperts: all of a layer's experts in host memory, the latest used ones in buffers on the device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from simtool.calibration.executor.timer import FamilyTimer
from simtool.calibration.kernels.experts import looped_experts, one_expert


class OffloadedExperts:
    """Keeps `kept` experts (least recently used goes first). hits, misses: of experts that a step needed.

    On a GPU the next missing expert is copied on a stream of its own while the one before it computes; on a CPU the
    buffers are memory of their own and a copy takes the time that it takes.
    """

    def __init__(self, up: torch.Tensor, down: torch.Tensor, kept: int, device: str) -> None:
        self.hits = 0
        self.misses = 0
        self._host = up, down
        self._kept = min(kept, len(up))
        self._buffers = tuple(
            torch.empty((self._kept, *part.shape[1:]), dtype=part.dtype, device=device) for part in (up, down)
        )
        self._place: OrderedDict[int, int] = OrderedDict()  # expert -> buffer, least recently used first
        self._missing: list[int] = []
        self._stream = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]
        self._copied: dict[int, torch.cuda.Event] = {}

    def run(self, x: torch.Tensor, chosen: torch.Tensor, weight: torch.Tensor, timer: FamilyTimer) -> torch.Tensor:
        """As ExpertStore says; copies are timed apart from the experts."""

        def one(expert: int, rows: torch.Tensor) -> torch.Tensor:
            place = self._loaded(expert, timer)
            found = one_expert(rows, self._buffers[0][place], self._buffers[1][place])
            if self._stream is not None and self._kept > 1 and self._missing:
                self._load(self._missing.pop(0), timer)
            return found

        return timer.run("moe", looped_experts, x, chosen, weight, len(self._host[0]), one, None, self._order)

    def _order(self, busy: Sequence[int]) -> Sequence[int]:
        """Experts that are here run first, so that none is evicted before it ran."""
        here = [expert for expert in busy if expert in self._place]
        self._missing = [expert for expert in busy if expert not in self._place]
        self.hits += len(here)
        self.misses += len(self._missing)
        for expert in here:
            self._place.move_to_end(expert)
        return here + self._missing

    def _loaded(self, expert: int, timer: FamilyTimer) -> int:
        if expert not in self._place:
            self._missing.remove(expert)
            self._load(expert, timer)
        if expert in self._copied:
            torch.cuda.current_stream().wait_event(self._copied.pop(expert))
        return self._place[expert]

    def _load(self, expert: int, timer: FamilyTimer) -> None:
        place = len(self._place) if len(self._place) < self._kept else self._place.popitem(last=False)[1]
        self._place[expert] = place
        if self._stream is None:
            timer.run("copies", self._copy, expert, place)
            return
        self._stream.wait_stream(torch.cuda.current_stream())  # what computes with the evicted expert ends first
        with torch.cuda.stream(self._stream):
            self._copy(expert, place)
            self._copied[expert] = self._stream.record_event()

    def _copy(self, expert: int, place: int) -> None:
        for buffer, host in zip(self._buffers, self._host, strict=True):
            buffer[place].copy_(host[expert], non_blocking=True)
