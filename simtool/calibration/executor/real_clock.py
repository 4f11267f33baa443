"""RealClock: each step of a SteppedCluster is run by a Runner, and takes as long as that took."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simtool.calibration.executor.batch import StepBatch, StepOutcome
from simtool.calibration.executor.sequences import Sequences
from simtool.simulator import state as st
from simtool.simulator.state import State
from simtool.workload import Workload

if TYPE_CHECKING:
    from simtool.calibration.executor.runner import Runner

Steady = Callable[[], bool]
MOST_REPEATS = 3  # of a step that an unsteady machine spoilt


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """A step that has run: one batch a data-parallel rank, what came out, and the host's seconds of it in all."""

    batches: tuple[StepBatch, ...]
    outcome: StepOutcome
    host_s: float


@dataclass(slots=True)
class _Flight:
    batches: tuple[StepBatch, ...]
    host_s: float
    outcome: StepOutcome | None = None


@dataclass(slots=True)
class _Replica:
    rows: list[Sequences]
    runner: Runner
    flights: dict[int, _Flight] = field(default_factory=dict)
    bookkeeping_s: float = 0.0  # after a step; charged to the next one


class RealClock:
    """Builds each scheduled batch, has the replica's runner run it, and keeps what happened in `steps`.

    read: the clock of host work, in seconds. steady: says whether the machine runs at its usual speed (None: it always
    does). A step during which it did not is run again, which changes nothing but the time: it writes the same KV.
    """

    def __init__(
        self,
        state: State,
        workload: Workload,
        runners: Sequence[Runner],
        *,
        vocab_size: int,
        seed: int,
        read: Callable[[], float],
        steady: Steady | None = None,
    ) -> None:
        self._replicas = []
        for group, runner in enumerate(runners):
            first, count = (int(state.group_i[group, column]) for column in (st.ROW0, st.ROWS))
            rows = [Sequences(state, group, row, workload, vocab_size, seed) for row in range(first, first + count)]
            self._replicas.append(_Replica(rows, runner))
        self._read = read
        self._steady = steady
        self.steps: list[RunStep] = []

    def begin(self, state: State, group: int, lane: int) -> float:
        """Build the batch and hand it to the runner; the seconds until the first stage is free again."""
        replica = self._replicas[group]
        start = self._read()
        batches = tuple(row.batch(state, lane) for row in replica.rows)
        built = self._read()
        flight = replica.flights[lane] = _Flight(batches, built - start + replica.bookkeeping_s)
        replica.bookkeeping_s = 0.0
        if state.config[group, st.LANES] == 1:
            flight.outcome = self._run(replica.runner, lane, batches)
            return 0.0
        replica.runner.submit(lane, batches)
        return self._read() - start

    def end(self, group: int, lane: int) -> float:
        """Seconds of the step: the host's work and the runner's."""
        replica = self._replicas[group]
        flight = replica.flights[lane]
        if flight.outcome is None:
            flight.outcome = replica.runner.collect(lane)
        return flight.host_s + flight.outcome.seconds

    def ended(self, state: State, group: int, lane: int) -> None:
        """Give the sampled tokens to their requests."""
        replica = self._replicas[group]
        flight = replica.flights.pop(lane)
        assert flight.outcome is not None
        start = self._read()
        for row, batch, tokens in zip(replica.rows, flight.batches, flight.outcome.tokens, strict=True):
            row.ended(state, batch, tokens)
        replica.bookkeeping_s += self._read() - start
        host_s = flight.host_s + _host_part(flight.outcome)
        self.steps.append(RunStep(batches=flight.batches, outcome=flight.outcome, host_s=host_s))

    def sequences(self) -> Iterator[Sequences]:
        """Every row's."""
        for replica in self._replicas:
            yield from replica.rows

    def _run(self, runner: Runner, lane: int, batches: Sequence[StepBatch]) -> StepOutcome:
        """The outcome at the machine's usual speed; of an unsteady machine, the middle one of what it gave."""
        outcomes: list[StepOutcome] = []
        for _ in range(MOST_REPEATS):
            before = self._steady is None or self._steady()
            with _without_gc():
                runner.submit(lane, batches)
                outcomes.append(runner.collect(lane))
            if self._steady is None or (before and self._steady()):
                return outcomes[-1]
        return sorted(outcomes, key=lambda outcome: outcome.seconds)[len(outcomes) // 2]


def _host_part(outcome: StepOutcome) -> float:
    """Seconds of a step in which no kernel ran; where kernels are not timed one by one, those before the first."""
    return outcome.seconds - sum(outcome.family_s.values()) if outcome.family_s else outcome.host_s


@contextmanager
def _without_gc() -> Iterator[None]:
    """A collection in the middle of a step would be charged to it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
