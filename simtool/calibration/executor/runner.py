"""Runners: who executes step batches. TorchRunner does it in this process; distributed.py over several."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from simtool.calibration.executor.batch import StepBatch, StepOutcome
from simtool.calibration.executor.graphs import DecodeGraphs
from simtool.calibration.executor.options import ExecutorOptions
from simtool.calibration.executor.ranks import alone
from simtool.calibration.executor.timer import FamilyTimer
from simtool.calibration.executor.worker import RankWorker
from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture


class Runner(Protocol):
    """Executes steps. Lanes are pipeline micro-batches: their steps may be in flight together."""

    def submit(self, lane: int, batches: Sequence[StepBatch]) -> None:
        """Begin a step: one batch a data-parallel rank, some of which may be empty."""

    def collect(self, lane: int) -> StepOutcome:
        """The outcome of the oldest submitted step of that lane; waits for it."""

    def forget_experts(self) -> None:
        """Offloaded experts leave the device: the next step finds none of them there."""

    def close(self) -> None:
        """End it; other processes end too."""


class TorchRunner:
    """One rank, in this process. Seconds are the thread's CPU time, or a GPU's between two events."""

    def __init__(self, arch: ModelArchitecture, options: ExecutorOptions) -> None:
        self._cuda = options.device == "cuda"
        self._timer = FamilyTimer(on=options.timed and not self._cuda)
        self._worker = RankWorker(arch, alone(), options, self._timer)
        self._graphs = DecodeGraphs(self._worker, options) if options.capture_sizes else None
        self._done: dict[int, deque[_Pending]] = {}
        self._counts: NDArray[np.int64] | None = None

    def submit(self, lane: int, batches: Sequence[StepBatch]) -> None:
        """Runs the step; on a GPU it is only begun."""
        if len(batches) != 1:
            raise InputError(len(batches), "one process executes the batch of one data-parallel rank")
        self._timer.taken()
        start, begun = self._now(), self._event()
        prepared = start
        if not batches[0].slots:
            tokens = torch.zeros(0, dtype=torch.int64)
        elif self._graphs is not None and self._graphs.takes(batches[0]):
            tokens = self._graphs.run(batches[0])
        else:
            inputs = self._worker.inputs(batches)
            prepared = self._now()
            tokens = self._worker.sample(inputs, self._worker.run(inputs, None))
        times = self._now() - start, prepared - start, dict(self._timer.taken()), begun, self._event()
        pending = _Pending(tokens, *times, self._worker.taken_routes(), self._counted())
        self._done.setdefault(lane, deque()).append(pending)

    def collect(self, lane: int) -> StepOutcome:
        """As Runner says."""
        if not self._done.get(lane):
            raise InputError(lane, "no step of this lane was submitted")
        return self._done[lane].popleft().outcome()

    def forget_experts(self) -> None:
        """As Runner says."""
        self._worker.forget_experts()
        self._counts = None

    def close(self) -> None:
        """Nothing is left to end."""
        self._done.clear()

    def _counted(self) -> NDArray[np.int64] | None:
        """Hits and misses of offloaded experts since the last step."""
        counts, before = self._worker.expert_counts(), self._counts
        self._counts = counts
        return counts if counts is None or before is None else counts - before

    def _now(self) -> float:
        return time.perf_counter() if self._cuda else time.thread_time()

    def _event(self) -> Any:
        if not self._cuda:
            return None
        event: Any = torch.cuda.Event
        made = event(enable_timing=True)
        made.record()
        return made


class _Pending:
    """A step that was begun; on a GPU its tokens and time are known when its last event is."""

    def __init__(
        self,
        tokens: torch.Tensor,
        seconds: float,
        host_s: float,
        family_s: dict[str, float],
        begun: Any,
        ended: Any,
        routes: torch.Tensor | None,
        experts: NDArray[np.int64] | None,
    ) -> None:
        self._tokens = tokens
        self._seconds = seconds
        self._host_s = host_s
        self._family_s = family_s
        self._events = begun, ended
        self._routes = routes
        self._experts = experts

    def outcome(self) -> StepOutcome:
        """Waits for the device."""
        seconds, (begun, ended) = self._seconds, self._events
        if ended is not None:
            ended.synchronize()
            seconds = 1e-3 * float(begun.elapsed_time(ended))
        return StepOutcome(
            tokens=(self._tokens.cpu().numpy().astype(np.int64),),
            seconds=seconds,
            host_s=self._host_s,
            family_s=self._family_s,
            routing=None if self._routes is None else self._routes.cpu().numpy(),
            experts=self._experts,
        )
