"""A cluster whose steps take as long as somebody else says: a real machine, or the record of one.

Decisions are the replica's own, so that an executed schedule is the simulated one by construction.
"""

from __future__ import annotations

from typing import Protocol

from simtool.simulator import state as st
from simtool.simulator.cluster import InteractiveCluster, Process
from simtool.simulator.replica import RECORDS_FULL, next_event, run_event
from simtool.simulator.routing import ROUND_ROBIN
from simtool.simulator.state import State
from simtool.workload import Workload


class StepClock(Protocol):
    """Runs steps, or remembers how long they took. A step's batch stands in the state while it is in flight."""

    def begin(self, state: State, group: int, lane: int) -> float:
        """A step has been scheduled; returns the seconds after which the first stage takes another lane's step.

        0 where there is one stage. What the tables say the step takes is LEAP_END - LEAP_START of its flight.
        """

    def end(self, group: int, lane: int) -> float:
        """The seconds that the lane's step took from its start."""

    def ended(self, state: State, group: int, lane: int) -> None:
        """The step has been applied: its tokens count, finished requests have left."""


class SteppedCluster(InteractiveCluster):
    """Replicas one iteration at a time on a StepClock's time. The state is built with exact_steps, without leaps.

    priced_s: what the tables say each step takes, in the order in which the steps ended.
    """

    def __init__(self, state: State, workload: Workload, router: int, clock: StepClock) -> None:
        super().__init__(state, workload, router)
        self.clock = clock
        self.priced_s: list[float] = []

    def run(self) -> None:
        """Run the workload to its end; as `run_cluster` does, requests that nothing delays are handed over ahead."""
        sessions = bool(len(self.workload.follows)) and bool((self.workload.follows >= 0).any())
        apart = len(self.state.row_i) == 1 or (self.router == ROUND_ROBIN and not self.workload.max_concurrency)
        if apart and not sessions:
            self.hand_over()
            self.unsent = []
        self.run_interactive()

    def replica(self, group: int) -> Process:
        """Start what can start; with nothing to start, wait for the oldest step in flight, or for an arrival."""
        flying: dict[int, float] = {}  # lane -> what its step is priced at, oldest first
        while True:
            start_s = next_event(self.handle, group)  # steps in flight end at INF until the clock says when
            startable = start_s <= max(self.env.now, float(self.state.stage_free[group, 0]))
            if startable and start_s <= self.env.now:
                self.run_event(group, flying)
            elif startable or (start_s < st.INF and not flying):
                yield self.env.timeout(start_s - self.env.now) | self.wake[group]
            elif flying:
                yield from self.finish(group, next(iter(flying)), flying)
            else:
                yield self.wake[group]

    def run_event(self, group: int, flying: dict[int, float]) -> int:
        """Run the replica's next event; a step that it starts is handed to the clock. Returns requests finished."""
        finished = run_event(self.handle, group, st.INF)
        for lane in range(self.state.config[group, st.LANES]):
            flight = self.state.flight_f[group, lane]
            if self.state.flight_i[group, lane, st.LEAP] > 0 and lane not in flying:
                flying[lane] = float(flight[st.LEAP_END] - flight[st.LEAP_START])
                busy_s = self.clock.begin(self.state, group, lane)
                flight[st.LEAP_END] = st.INF
                self.state.stage_free[group, 0] = self.env.now + busy_s
        return finished

    def finish(self, group: int, lane: int, flying: dict[int, float]) -> Process:
        """Let the rest of the step's time pass and apply it."""
        flight = self.state.flight_f[group, lane]
        end_s = max(float(flight[st.LEAP_START]) + self.clock.end(group, lane), self.env.now)
        yield self.env.timeout(end_s - self.env.now)
        if len(self.state.records) and self.state.record_n[0] >= len(self.state.records):
            self.check(RECORDS_FULL)
        flight[st.LEAP_END], finished = self.env.now, 0
        while self.state.flight_i[group, lane, st.LEAP] > 0:
            finished += self.run_event(group, flying)
        self.priced_s.append(flying.pop(lane))
        self.clock.ended(self.state, group, lane)
        if finished > 0:
            self.finished(group)
            yield self.env.timeout(0)
