"""HEFT: heterogeneous earliest finish time, by insertion. Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002, section 4.1."""

from __future__ import annotations

from dataclasses import dataclass

from simtool.planners.schedule.dag import DagProblem, check_dag


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """processor[task], start_s[task] and the end of the last task."""

    processor: tuple[int, ...]
    start_s: tuple[float, ...]
    makespan_s: float


def heft(problem: DagProblem) -> Placed:
    """Tasks by falling upward rank, each where it ends first, in the earliest gap that holds it."""
    order = check_dag(problem)
    rank = upward_ranks(problem, order)
    place = {task: position for position, task in enumerate(order)}
    busy: list[list[tuple[float, float]]] = [[] for _ in range(problem.processors)]
    processor, start = [0] * len(order), [0.0] * len(order)
    into = problem.before()
    for task in sorted(order, key=lambda task: (-rank[task], place[task])):
        options = []
        for p in problem.able(task):
            ready = max(
                (
                    start[edge.before]
                    + problem.durations[edge.before][processor[edge.before]]
                    + edge.seconds * problem.apart(processor[edge.before], p)
                    for edge in into[task]
                ),
                default=0.0,
            )
            begin = first_gap(busy[p], ready, problem.durations[task][p])
            options.append((begin + problem.durations[task][p], p, begin))
        end, processor[task], start[task] = min(options)
        busy[processor[task]].append((start[task], end))
        busy[processor[task]].sort()
    return Placed(processor=tuple(processor), start_s=tuple(start), makespan_s=makespan(problem, processor, start))


def makespan(problem: DagProblem, processor: list[int], start: list[float]) -> float:
    """End of the last task."""
    return max(
        (s + row[p] for s, row, p in zip(start, problem.durations, processor, strict=True)),
        default=0.0,
    )


def first_gap(busy: list[tuple[float, float]], ready: float, seconds: float) -> float:
    """Earliest start at `ready` or later in a sorted list of busy spans."""
    begin = ready
    for since, until in busy:
        if begin + seconds <= since:
            break
        begin = max(begin, until)
    return begin


def upward_ranks(problem: DagProblem, order: list[int]) -> list[float]:
    """Mean seconds of the longest way from each task to the end; means over the processors that can, and over pairs."""
    count = problem.processors
    pairs = [problem.apart(p, q) for p in range(count) for q in range(count) if p != q]
    far = sum(pairs) / len(pairs) if pairs else 0.0
    rank = [0.0] * len(order)
    out = problem.after()
    for task in reversed(order):
        able = problem.able(task)
        mean = sum(problem.durations[task][p] for p in able) / len(able)
        rank[task] = mean + max((edge.seconds * far + rank[edge.after] for edge in out[task]), default=0.0)
    return rank
