"""What a task graph's makespan cannot be below, and what running one task after another would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simtool.errors import InputError
from simtool.simulator.tasks.arrays import F8, I8
from simtool.simulator.tasks.graph import TaskGraph, edge_array
from simtool.simulator.tasks.sharing import wave_share
from simtool.simulator.tasks.task import Task


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
    """Seconds of a task that has everything to itself; inf where it needs a resource of rate 0."""
    return _alone_s(graph.rates, graph.tiled, task)


def graph_bounds(graph: TaskGraph) -> GraphBounds:
    """Bounds of a graph with constant rates; inf where a task needs a resource of rate 0. InputError for a cycle."""
    rates = graph.rates
    seconds = np.array([_alone_s(rates, graph.tiled, task) for task in graph.tasks])
    total = dict.fromkeys(rates, 0.0)
    for task in graph.tasks:
        for name, units in task.work.items():
            total[name] += units
    busy = [_seconds(units, rates[name]) for name, units in total.items()]
    ends = longest_path_s(seconds, edge_array(graph.tasks))
    return GraphBounds(
        path_s=float(ends.max(initial=0.0)), busiest_s=max(busy, default=0.0), serial_s=float(seconds.sum())
    )


def longest_path_s(seconds: F8, edges: I8) -> F8:
    """[n] earliest end of each task where nothing is shared. edges [k, 2], sorted. InputError for a cycle."""
    n = len(seconds)
    missing = np.bincount(edges[:, 1], minlength=n).tolist()
    first = np.searchsorted(edges[:, 0], np.arange(n + 1)).tolist()
    after, starts, own = edges[:, 1].tolist(), [0.0] * n, seconds.tolist()
    ready = [task for task in range(n) if not missing[task]]
    for task in ready:  # grows
        end = starts[task] + own[task]
        for place in range(first[task], first[task + 1]):
            second = after[place]
            starts[second] = max(starts[second], end)
            missing[second] -= 1
            if not missing[second]:
                ready.append(second)
    if len(ready) < n:
        raise InputError(missing.index(max(missing)), "this task waits for itself through other tasks")
    return np.array(starts) + seconds


def _alone_s(rates: Mapping[str, float], tiled: str, task: Task) -> float:
    longest = task.shortest_s
    for name, work in task.work.items():
        seconds = _seconds(work, rates[name])
        if name == tiled and task.tiles and 0 < seconds < float("inf"):
            seconds /= wave_share(task.tiles, rates[name])
        longest = max(longest, seconds)
    return task.latency_s + longest


def _seconds(work: float, rate: float) -> float:
    if work <= 0:
        return 0.0
    return work / rate if rate > 0 else float("inf")
