"""Run a task graph: one call of the compiled loop. Bounds without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simtool.errors import InputError
from simtool.simulator.tasks.arrays import DONE, END, ENDED, PHASE, SEGMENTS, START, Arrays, make_arrays
from simtool.simulator.tasks.graph import TaskGraph, check_graph
from simtool.simulator.tasks.loop import run_graph
from simtool.simulator.tasks.sharing import waves
from simtool.simulator.tasks.task import RateChange, Task
from simtool.simulator.tasks.timeline import Timeline, graph_edges


def simulate_tasks(graph: TaskGraph, changes: Sequence[RateChange] = (), *, record: bool = False) -> Timeline:
    """Start and end of every task, exact for rates that are constant between events.

    record: keep every change of speed, for `Timeline.usage`. Raises InputError for a graph that is none, and where
    tasks are left that can never end (a store that nobody frees, a resource that stays at rate 0).
    """
    check_graph(graph)
    known = graph.rates
    for change in changes:
        if change.resource not in known or not (change.rate >= 0 and change.at_s >= 0):
            raise InputError(change, "is no change of a resource of the graph", "name, rate >= 0, at_s >= 0")
    arrays = make_arrays(graph, changes, 0)
    if graph.tasks:
        run_graph(arrays)
        if record:
            arrays = make_arrays(graph, changes, int(arrays.counters[SEGMENTS]))
            run_graph(arrays)
    _check_ended(graph, arrays)
    return Timeline(graph=graph, start_s=arrays.task_f[:, START], end_s=arrays.task_f[:, END], segments=arrays.segments)


def _check_ended(graph: TaskGraph, arrays: Arrays) -> None:
    if arrays.counters[DONE] < len(graph.tasks):
        stuck = graph.tasks[int(np.flatnonzero(arrays.task_i[:, PHASE] != ENDED)[0])]
        needs = sorted({*stuck.work, *stuck.holds, *stuck.takes})
        raise InputError(stuck.name, "never ends: what it needs is never free", f"it uses {', '.join(needs)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphBounds:
    """Seconds that no schedule beats, and that running one task after another takes.

    path_s: longest chain of tasks, each alone. busiest_s: the fullest resource's work at its rate. serial_s: all tasks
    one by one.
    """

    path_s: float
    busiest_s: float
    serial_s: float

    @property
    def lower_s(self) -> float:
        """T_lower: no schedule of these tasks is faster."""
        return max(self.path_s, self.busiest_s)


def alone_s(graph: TaskGraph, task: Task) -> float:
    """Seconds of a task that has everything to itself."""
    rates, longest = graph.rates, task.shortest_s
    for name, work in task.work.items():
        if work > 0:
            seconds = work / rates[name] if rates[name] > 0 else float("inf")
            if name == graph.tiled and task.tiles and rates[name] > 0:
                seconds /= waves(task.tiles, rates[name])
            longest = max(longest, seconds)
    return task.latency_s + longest


def graph_bounds(graph: TaskGraph) -> GraphBounds:
    """Bounds of a checked graph with constant rates."""
    seconds = [alone_s(graph, task) for task in graph.tasks]
    after: dict[int, list[int]] = {}
    missing = [0] * len(seconds)
    for first, second in set(graph_edges(graph)):
        after.setdefault(first, []).append(second)
        missing[second] += 1
    ready = [task for task, count in enumerate(missing) if not count]
    ends = list(seconds)
    while ready:
        first = ready.pop()
        for second in after.get(first, ()):
            ends[second] = max(ends[second], ends[first] + seconds[second])
            missing[second] -= 1
            if not missing[second]:
                ready.append(second)
    busy = [
        sum(task.work.get(resource.name, 0.0) for task in graph.tasks) / resource.rate
        for resource in graph.resources
        if resource.rate > 0
    ]
    return GraphBounds(path_s=max(ends, default=0.0), busiest_s=max(busy, default=0.0), serial_s=sum(seconds))
