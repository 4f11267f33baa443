"""The cluster: what interacts runs on simpy (clients, router, replicas), what does not is one call of the kernel."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from simtool.errors import SimtoolError
from simtool.simulator import state as st
from simtool.simulator.handle import handle
from simtool.simulator.jit import jit_entry
from simtool.simulator.queues import push_arrival
from simtool.simulator.replica import RECORDS_FULL, STALLED, advance, advance_all, interrupt, next_event, run_event
from simtool.simulator.routing import ROUND_ROBIN, choose_row, group_of, spread_row
from simtool.simulator.state import State
from simtool.workload import Workload

Process = Generator[simpy.Event, Any, None]


@jit_entry
def send(s: State, req: int, row: int, now_s: float) -> None:
    """Hand a request to a row at now_s."""
    s.req_f[req, st.ARRIVAL] = now_s
    s.row_i[row, st.OUTSTANDING] += 1
    push_arrival(s, row, req)


@jit_entry
def send_all(s: State, rows: st.I8) -> None:
    """Hand over all requests ahead of time: arrivals are known and routing does not depend on the state."""
    for req in range(s.req_i.shape[0]):
        rows[req] = spread_row(s, req)
        send(s, req, rows[req], s.req_f[req, st.ARRIVAL])


@jit_entry
def arrive(s: State, router: int, req: int, rows: st.I8) -> int:
    """Bring the cluster up to the request's arrival, route it and hand it over; returns advance's status."""
    now_s = s.req_f[req, st.ARRIVAL]
    status = advance_all(s, now_s)
    if status in (RECORDS_FULL, STALLED):
        return status
    rows[req] = choose_row(s, router, req, req)
    send(s, req, rows[req], now_s)
    return status


class Cluster:
    """A running cluster. `state` is replaced when the step log grows; `rows[i]` is the row that took request i."""

    def __init__(self, state: State, workload: Workload, router: int) -> None:
        self.state = state
        self.handle = handle(state)
        self.workload = workload
        self.router = router
        self.rows = np.full(workload.num_requests, st.NONE, np.int64)
        self.env = simpy.Environment()
        self.sent = 0

    def check(self, status: int) -> bool:
        """Whether the kernel has to be called again; a stall is raised, never hung."""
        if status == STALLED:
            raise SimtoolError("the scheduler stalled: requests wait, nothing runs and nothing will arrive")
        if status != RECORDS_FULL:
            return False
        old = self.state.records
        self.state = self.state._replace(records=np.concatenate([old, np.zeros_like(old)]))
        self.handle = handle(self.state)
        return True

    def drain(self) -> None:
        """Run every replica until it has nothing left."""
        for group in range(len(self.state.group_i)):
            while self.check(advance(self.handle, group, st.INF)):
                pass

    def hand_over(self) -> None:
        """Give every request to its row ahead of time: arrivals are known, or follow from the one row's ends."""
        closed = self.workload.max_concurrency
        if closed:
            self.state.req_f[closed:, st.ARRIVAL] = st.INF
            self.state.group_i[:, st.CLOSED] = 1
        send_all(self.handle, self.rows)
        if 0 < closed < self.workload.num_requests:
            self.state.row_i[0, st.RELEASE] = closed

    def run_apart(self) -> None:
        """Nothing depends on the state: one call a replica."""
        self.hand_over()
        self.drain()

    def arrivals(self) -> Process:
        """Open loop with a router that looks at the state at each arrival."""
        for req, arrival_s in enumerate(self.workload.arrival_s):
            if arrival_s > self.env.now:
                yield self.env.timeout(float(arrival_s) - self.env.now)
            while self.check(arrive(self.handle, self.router, req, self.rows)):
                pass

    def run_routed(self) -> None:
        """Open loop, state-dependent router."""
        self.env.process(self.arrivals())
        self.env.run()
        self.drain()


class InteractiveCluster(Cluster):
    """Finished requests cause new ones (closed loop over several replicas, sessions): replicas are simpy processes."""

    def __init__(self, state: State, workload: Workload, router: int) -> None:
        super().__init__(state, workload, router)
        self.wake = [self.env.event() for _ in state.group_i]
        self.followers = follower_of(workload)
        self.latency_s = float(state.scalars[0, st.REQUEST_LATENCY])  # between a client and the engine
        self.unsent = [int(i) for i in np.flatnonzero(first_turns(workload))[::-1]]

    def submit(self, req: int) -> None:
        """Route a request now and wake its replica."""
        row = choose_row(self.handle, self.router, req, self.sent)
        self.sent += 1
        self.rows[req] = row
        group = group_of(self.handle, row)
        send(self.handle, req, row, self.env.now)
        interrupt(self.handle, group, self.env.now)
        wake, self.wake[group] = self.wake[group], self.env.event()
        wake.succeed()

    def later(self, req: int, delay_s: float) -> Process:
        """A client sends a request after delay_s; it reaches the engine a little later."""
        yield self.env.timeout(delay_s + self.latency_s)
        self.submit(req)

    def source(self) -> Process:
        """Open-loop arrivals of first turns."""
        while self.unsent:
            req = self.unsent.pop()
            at_s = float(self.workload.arrival_s[req]) + self.latency_s
            if at_s > self.env.now:  # who comes at the same moment is seen by the same step
                yield self.env.timeout(at_s - self.env.now)
            self.submit(req)

    def finished(self, group: int) -> None:
        """What the end of requests causes: the next turn, or the next request of the closed loop."""
        first = self.state.group_i[group, st.ROW0]
        for row in range(first, first + self.state.group_i[group, st.ROWS]):
            req = int(self.state.row_i[row, st.ENDED_HEAD])
            while req != st.NONE:
                following = int(self.state.req_i[req, st.NEXT])
                if self.followers[req] != st.NONE:
                    follower = int(self.followers[req])
                    self.env.process(self.later(follower, float(self.workload.think_s[follower])))
                elif self.workload.max_concurrency and self.unsent:
                    self.env.process(self.later(self.unsent.pop(), 0.0))
                req = following

    def replica(self, group: int) -> Process:
        """One replica: sleep until its next event or an arrival, then run the event."""
        while True:
            at_s = next_event(self.handle, group)
            if at_s >= st.INF:
                yield self.wake[group]
                continue
            if at_s > self.env.now:
                wake = self.wake[group]
                yield self.env.timeout(at_s - self.env.now) | wake
                if wake.triggered:
                    continue
            if len(self.state.records) and self.state.record_n[0] >= len(self.state.records):
                self.check(RECORDS_FULL)
            if run_event(self.handle, group, st.INF) > 0:
                self.finished(group)
                yield self.env.timeout(0)

    def run_interactive(self) -> None:
        """Run until nobody has anything to do."""
        for group in range(len(self.state.group_i)):
            self.env.process(self.replica(group))
        if self.workload.max_concurrency:
            for _ in range(min(self.workload.max_concurrency, len(self.unsent))):
                self.env.process(self.later(self.unsent.pop(), 0.0))
        else:
            self.env.process(self.source())
        self.env.run()
        self.drain()  # nothing is left to run: this only raises a stall


def follower_of(workload: Workload) -> st.I8:
    """For each request the one that follows it in its session (NONE: the last)."""
    followers = np.full(workload.num_requests, st.NONE, np.int64)
    if len(workload.follows):
        later = np.flatnonzero(workload.follows >= 0)
        followers[workload.follows[later]] = later
    return followers


def first_turns(workload: Workload) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which requests arrive by themselves."""
    if len(workload.follows):
        return np.asarray(workload.follows < 0)
    return np.ones(workload.num_requests, bool)


def run_cluster(state: State, workload: Workload, router: int) -> Cluster:
    """Run the workload to its end in the cheapest way that is exact."""
    rows = len(state.row_i)
    sessions = bool(len(workload.follows)) and bool((workload.follows >= 0).any())
    if sessions or (workload.max_concurrency and rows > 1):
        interactive = InteractiveCluster(state, workload, router)
        interactive.run_interactive()
        return interactive
    cluster = Cluster(state, workload, router)
    if rows == 1 or router == ROUND_ROBIN:
        cluster.run_apart()
    else:
        cluster.run_routed()
    return cluster
