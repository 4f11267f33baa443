"""DistributedRunner: rank 0 of several; the others run `serve_worker`. Commands and sampled tokens go by the store."""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simtool.calibration.executor.batch import StepBatch, StepOutcome
from simtool.calibration.executor.options import ExecutorOptions
from simtool.calibration.executor.pipe import StagePipe
from simtool.calibration.executor.ranks import make_ranks
from simtool.calibration.executor.support import check_supported
from simtool.calibration.executor.timer import FamilyTimer
from simtool.calibration.executor.worker import RankWorker
from simtool.calibration.executor.world import STOP_S, World
from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture, MoeMlp
from simtool.plan import Parallel

IDLE_S = 7 * 86400.0  # a worker waits this long for the next command; it ends with rank 0 anyway
CLEAN_EVERY = 32  # commands between two removals of those that all ranks have read


class DistributedRunner:
    """Rank = ((stage * dp) + dp_rank) * tp + tp_rank. Seconds are rank 0's wall time from submit to collect."""

    def __init__(self, world: World, arch: ModelArchitecture, parallel: Parallel, options: ExecutorOptions) -> None:
        check_world(world, arch, parallel, options)
        self._world, self._parallel = world, parallel
        self._session = f"session{world.sessions}"
        world.sessions += 1
        self._commands = self._cleaned = 0
        self._flying: dict[int, deque[_Flight]] = {}
        self._closed = False
        with world.watched():
            for rank in range(1, world.size):  # a rank that is gone would be waited for in vain when groups are made
                world.wait_for(f"{self._session}/here/{rank}")
            self._worker, self._pipe = _built(world, arch, parallel, options)
            for rank in range(1, world.size):
                world.wait_for(f"{self._session}/ready/{rank}")

    def submit(self, lane: int, batches: Sequence[StepBatch]) -> None:
        """Tell all ranks, and run this rank's stage."""
        if len(batches) != self._parallel.dp:
            raise InputError(len(batches), f"a step has one batch for each of {self._parallel.dp} ranks")
        start = time.perf_counter()
        with self._world.watched():
            number = self._tell(("step", tuple(batches)))
            inputs = self._pipe.inputs(batches)
            host_s = time.perf_counter() - start
            own = self._pipe.run(inputs)
        flight = _Flight(number, start, host_s, own)
        self._flying.setdefault(lane, deque()).append(flight)

    def collect(self, lane: int) -> StepOutcome:
        """As Runner says."""
        if not self._flying.get(lane):
            raise InputError(lane, "no step of this lane was submitted")
        flight = self._flying[lane].popleft()
        with self._world.watched():
            tokens = tuple(self._tokens(flight, dp_rank) for dp_rank in range(self._parallel.dp))
        seconds = time.perf_counter() - flight.start
        return StepOutcome(tokens=tokens, seconds=seconds, host_s=flight.host_s, family_s={})

    def forget_experts(self) -> None:
        """As Runner says."""
        with self._world.watched():
            self._tell(("forget", None))
        self._worker.forget_experts()

    def close(self) -> None:
        """The ranks end their session. The world stays: `World.close` ends it."""
        if not self._closed:
            self._closed = True
            with self._world.watched():
                self._pipe.drain()
                self._tell(("stop", None))
                for rank in range(1, self._world.size):  # the store may end with this process
                    self._world.wait_for(f"{self._session}/ended/{rank}", STOP_S)

    def _tell(self, command: tuple[str, object]) -> int:
        number = self._commands
        self._world.store.set(f"{self._session}/command/{number}", pickle.dumps(command))
        self._commands += 1
        if number % CLEAN_EVERY == 0:
            self._clean()
        return number

    def _clean(self) -> None:
        """Remove commands up to the last mark that every other rank has passed."""
        store = self._world.store
        mark = (self._commands - 1) // CLEAN_EVERY * CLEAN_EVERY - CLEAN_EVERY
        if mark < 0 or store.add(f"{self._session}/read/{mark}", 0) < self._world.size - 1:
            return
        for number in range(self._cleaned, mark):
            store.delete_key(f"{self._session}/command/{number}")
        self._cleaned = mark

    def _tokens(self, flight: _Flight, dp_rank: int) -> NDArray[np.int64]:
        if dp_rank == 0 and flight.own is not None:
            return np.asarray(flight.own.cpu().numpy(), dtype=np.int64)
        key = _token_key(self._session, flight.number, dp_rank)
        found = np.frombuffer(self._world.wait_for(key)[1:], dtype=np.int64).copy()
        self._world.store.delete_key(key)
        return found


class _Flight:
    """A step that was submitted. own: tokens that this process has sampled itself."""

    def __init__(self, number: int, start: float, host_s: float, own: torch.Tensor | None) -> None:
        self.number = number
        self.start = start
        self.host_s = host_s
        self.own = own


def serve_worker(world: World, arch: ModelArchitecture, parallel: Parallel, options: ExecutorOptions) -> None:
    """Run steps as rank 0 says, until it says stop. For ranks 1.. of a world, with the very arguments of rank 0."""
    session = f"session{world.sessions}"
    world.sessions += 1
    world.store.set(f"{session}/here/{world.rank}", b"=")
    worker, pipe = _built(world, arch, parallel, options)
    world.store.set(f"{session}/ready/{world.rank}", b"=")
    place, number = worker.ranks.place, 0
    while True:
        kind, content = _command(world.store, f"{session}/command/{number}")
        if number % CLEAN_EVERY == 0:
            world.store.add(f"{session}/read/{number}", 1)
        if kind == "stop":
            pipe.drain()
            world.store.set(f"{session}/ended/{world.rank}", b"=")
            return
        number += 1
        if kind == "forget":
            worker.forget_experts()
            continue
        found = pipe.run(pipe.inputs(content))
        if found is not None and place.tp_rank == 0:
            key = _token_key(session, number - 1, place.dp_rank)
            world.store.set(key, b"=" + found.cpu().numpy().astype(np.int64).tobytes())  # never an empty value


def check_world(world: World, arch: ModelArchitecture, parallel: Parallel, options: ExecutorOptions) -> None:
    """Raise InputError for what this world cannot execute."""
    if parallel.devices != world.size:
        raise InputError(f"{world.size} processes", f"the plan's replica has {parallel.devices} devices")
    check_supported(arch, parallel, options)


def _built(
    world: World, arch: ModelArchitecture, parallel: Parallel, options: ExecutorOptions
) -> tuple[RankWorker, StagePipe]:
    ranks = make_ranks(world.rank, parallel)
    worker = RankWorker(arch, ranks, options, FamilyTimer(on=False))
    meets = parallel.dp > 1 and any(isinstance(layer.mlp, MoeMlp) for layer in arch.layers)
    return worker, StagePipe(worker, arch.hidden_size, meets=meets)


def _command(store: Any, key: str) -> tuple[str, Any]:
    store.wait([key], timedelta(seconds=IDLE_S))
    kind, content = pickle.loads(store.get(key))
    return str(kind), content


def _token_key(session: str, number: int, dp_rank: int) -> str:
    return f"{session}/tokens/{number}/{dp_rank}"
