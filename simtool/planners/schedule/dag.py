"""A DAG of tasks on unlike processors: Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002, section 2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from simtool.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Task `after` starts when the data of task `before` are there: `seconds` x the distance of their processors."""

    before: int
    after: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DagProblem:
    """durations[task][processor]: seconds, inf where it cannot run. A processor runs one task at a time, to its end.

    distance[p][q]: what multiplies an edge's seconds between processors p and q; () is 1 between any two and 0 on one.
    """

    durations: tuple[tuple[float, ...], ...]
    edges: tuple[Edge, ...] = ()
    distance: tuple[tuple[float, ...], ...] = ()

    @property
    def processors(self) -> int:
        """How many processors there are."""
        return len(self.durations[0]) if self.durations else 0

    def apart(self, p: int, q: int) -> float:
        """Distance of two processors."""
        return self.distance[p][q] if self.distance else float(p != q)

    def able(self, task: int) -> list[int]:
        """Processors that can run the task."""
        return [p for p, seconds in enumerate(self.durations[task]) if math.isfinite(seconds)]

    def before(self) -> list[list[Edge]]:
        """Edges into each task."""
        found: list[list[Edge]] = [[] for _ in self.durations]
        for edge in self.edges:
            found[edge.after].append(edge)
        return found

    def after(self) -> list[list[Edge]]:
        """Edges out of each task."""
        found: list[list[Edge]] = [[] for _ in self.durations]
        for edge in self.edges:
            found[edge.before].append(edge)
        return found


def check_dag(problem: DagProblem) -> list[int]:
    """Tasks in an order that the edges allow. InputError for a table or edges that are none, and for cycles."""
    tasks, processors = len(problem.durations), problem.processors
    for row in problem.durations:
        if len(row) != processors or not row or not any(math.isfinite(value) for value in row):
            raise InputError(row, f"a task needs {processors} durations, one of them finite")
        if any(math.isnan(value) or value < 0 for value in row):
            raise InputError(row, "durations are seconds, at least 0, or inf")
    if problem.distance and [len(row) for row in problem.distance] != [processors] * processors:
        raise InputError(problem.distance, f"distances are a table of {processors} x {processors}")
    if any(not (math.isfinite(value) and value >= 0) for row in problem.distance for value in row):
        raise InputError(problem.distance, "distances are finite and at least 0")
    order: TopologicalSorter[int] = TopologicalSorter({task: set() for task in range(tasks)})
    for edge in problem.edges:
        if not (0 <= edge.before < tasks and 0 <= edge.after < tasks):
            raise InputError(edge, f"an edge joins two of the {tasks} tasks")
        if not (math.isfinite(edge.seconds) and edge.seconds >= 0):
            raise InputError(edge.seconds, "an edge takes finite seconds, at least 0")
        order.add(edge.after, edge.before)
    try:
        return list(order.static_order())
    except CycleError as error:
        raise InputError(error.args[1], "tasks wait for each other", "a DAG has no cycle") from None


def earliest(problem: DagProblem, order: list[int]) -> list[list[float]]:
    """[task][processor]: seconds before which the task cannot start there, if no processor were ever busy."""
    heads = [[0.0] * problem.processors for _ in problem.durations]
    into = problem.before()
    for task in order:
        for q in range(problem.processors):
            heads[task][q] = max((_arrival(problem, heads, edge, q) for edge in into[task]), default=0.0)
    return heads


def _arrival(problem: DagProblem, heads: list[list[float]], edge: Edge, q: int) -> float:
    first = edge.before
    return min(
        heads[first][p] + problem.durations[first][p] + edge.seconds * problem.apart(p, q) for p in problem.able(first)
    )


def remaining(problem: DagProblem, order: list[int]) -> list[list[float]]:
    """[task][processor]: seconds from the task's start there to the end of all, if no processor were ever busy."""
    tails = [[math.inf] * problem.processors for _ in problem.durations]
    out = problem.after()
    for task in reversed(order):
        for p in problem.able(task):
            after = (
                min(tails[edge.after][q] + edge.seconds * problem.apart(p, q) for q in problem.able(edge.after))
                for edge in out[task]
            )
            tails[task][p] = problem.durations[task][p] + max(after, default=0.0)
    return tails
