"""Checker of schedules: plainly, in true seconds, by the rules of the problem alone. It shares no code with a search.

CheckError names the broken rule; silence means that all hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from simtool.planners.check import CheckError
from simtool.planners.schedule.dag import DagProblem

_CLOSE = 1e-9  # of the makespan: what adding floats may leave


def check_dag_schedule(
    problem: DagProblem, processor: Sequence[int], start_s: Sequence[float], makespan_s: float
) -> None:
    """One task at a time on a processor, data before their use, and the end that is claimed."""
    end_s = [start + row[p] for start, row, p in zip(start_s, problem.durations, processor, strict=True)]
    room = _CLOSE * max([makespan_s, *(abs(value) for value in end_s if math.isfinite(value))])
    if not all(math.isfinite(value) for value in end_s) or min(start_s, default=0.0) < -room:
        raise CheckError("able", "a task runs where it cannot, or before 0")
    for edge in problem.edges:
        p, q = processor[edge.before], processor[edge.after]
        far = problem.distance[p][q] if problem.distance else (0.0 if p == q else 1.0)
        if start_s[edge.after] < end_s[edge.before] + edge.seconds * far - room:
            raise CheckError("order", f"task {edge.after} starts before the data of task {edge.before} are there")
    for task in range(len(start_s)):
        for other in range(task):
            together = min(end_s[task], end_s[other]) - max(start_s[task], start_s[other])
            if processor[task] == processor[other] and together > room:
                raise CheckError("one at a time", f"tasks {other} and {task} are on processor {processor[task]}")
    if abs(max(end_s, default=0.0) - makespan_s) > room:
        raise CheckError("makespan", f"{max(end_s):.9g} s, {makespan_s:.9g} s are claimed")
