"""Timeline: when each task of a graph ran, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.simulator.tasks.graph import TaskGraph, edge_array

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """start_s, end_s [n]: by task. segments [k, 3]: (task, since, speed) in the order of time, where recorded."""

    graph: TaskGraph
    start_s: Array
    end_s: Array
    segments: Array

    @property
    def makespan_s(self) -> float:
        """End of the last task; 0 for an empty graph."""
        return float(self.end_s.max(initial=0.0))

    def critical_path(self) -> tuple[int, ...]:
        """Tasks from the first to the last to end, each started by the end of the one before it (or later, where it
        waited for a store or a hold).
        """
        if not len(self.end_s):
            return ()
        before: dict[int, list[int]] = {}
        for first, second in edge_array(self.graph.tasks).tolist():
            before.setdefault(second, []).append(first)
        path = [int(np.argmax(self.end_s))]
        while before.get(path[-1]):
            path.append(max(before[path[-1]], key=lambda task: float(self.end_s[task])))
        return tuple(reversed(path))

    def usage(self, resource: str) -> tuple[Array, Array]:
        """(times [m], units a second from each time on [m]) of a resource, from recorded segments."""
        work = np.array([task.work.get(resource, 0.0) for task in self.graph.tasks])
        tasks = self.segments[:, 0].astype(np.int64)
        mine = np.flatnonzero(work[tasks] > 0)
        mine = mine[np.argsort(tasks[mine], kind="stable")]  # by task, each in the order of time
        if not len(mine):
            return np.zeros(1), np.zeros(1)
        task, since, speed = tasks[mine], self.segments[mine, 1], self.segments[mine, 2]
        fresh = np.concatenate(([True], task[1:] != task[:-1]))
        last = np.concatenate((fresh[1:], [True]))
        before = np.where(fresh, 0.0, np.concatenate(([0.0], speed[:-1])))
        at = np.concatenate([since, self.end_s[task[last]]])
        step = np.concatenate([(speed - before) * work[task], -speed[last] * work[task[last]]])
        times, place = np.unique(at, return_inverse=True)
        return times, np.cumsum(np.bincount(place, weights=step))

    def mean_usage(self, resource: str, edges: Array) -> Array:
        """[len(edges) - 1] units a second of a resource, averaged between neighbouring edges (ascending seconds)."""
        times, used = self.usage(resource)
        served = np.concatenate(([0.0], np.cumsum(used[:-1] * np.diff(times))))
        return np.asarray(np.diff(np.interp(edges, times, served)) / np.diff(edges))

    def exposed_s(self, *families: str) -> float:
        """Seconds in which tasks of `families` run and no other task does (exposed communication, say)."""
        mine = np.array([task.family in families for task in self.graph.tasks], dtype=bool)
        own, others = (union_spans(self.start_s[which], self.end_s[which]) for which in (mine, ~mine))
        return covered_s(union_spans(*np.concatenate([own, others]).T)) - covered_s(others)


def union_spans(start: Array, end: Array) -> Array:
    """[k, 2]: disjoint spans, in order, that cover the same times as the given ones."""
    if not len(start):
        return np.zeros((0, 2))
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    first = np.concatenate(([True], start[1:] > reach[:-1]))
    last = np.append(np.flatnonzero(first)[1:] - 1, len(start) - 1)
    return np.column_stack([start[first], reach[last]])


def covered_s(spans: Array) -> float:
    """Length of disjoint spans."""
    return float((spans[:, 1] - spans[:, 0]).sum())
