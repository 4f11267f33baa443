"""Checker of schedules: plainly, in true seconds, by the rules of the problem alone. It shares no code with a search.

CheckError names the broken rule; silence means that all hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from simtool.planners.check import CheckError
from simtool.planners.schedule.dag import DagProblem
from simtool.planners.schedule.layer import LayerProblem, ModuloSchedule

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


def check_modulo_schedule(problem: LayerProblem, schedule: ModuloSchedule, layers: int = 4) -> None:
    """Unroll some layers: every nano-batch served, operations in order, layer after layer, resources not exceeded."""
    period = schedule.period_s
    room = _CLOSE * (layers + 1) * period
    runs: list[tuple[float, float, tuple[tuple[str, int], ...]]] = []
    for layer in range(layers):
        spans = _layer_spans(problem, schedule, layer * period)
        later = _layer_spans(problem, schedule, (layer + 1) * period)
        runs += [(begin, end, uses) for begin, end, uses, _ in spans]
        when = {key: (begin, end) for begin, end, _, keys in spans for key in keys}
        wanted = {(op, batch) for op in range(len(problem.operations)) for batch in range(problem.batches)}
        if set(when) != wanted or sum(len(keys) for *_, keys in spans) != len(wanted):
            raise CheckError("served", "an operation of a nano-batch is missing, or done twice")
        following = {key: begin for begin, _, _, keys in later for key in keys}
        for batch in range(problem.batches):
            for before, after in problem.precedences:
                if when[after, batch][0] < when[before, batch][1] - room:
                    raise CheckError("order", f"operation {after} starts before {before} has ended, nano-batch {batch}")
            for op in range(len(problem.operations)):
                if when[op, batch][0] < when[0, batch][0] - room:
                    raise CheckError("first", f"operation {op} starts before operation 0, nano-batch {batch}")
                if when[op, batch][1] > following[0, batch] + room:
                    raise CheckError("layer", f"operation {op} ends after the next layer has begun, nano-batch {batch}")
    _check_use(runs, room)


Span = tuple[float, float, tuple[tuple[str, int], ...], list[tuple[int, int]]]


def _layer_spans(problem: LayerProblem, schedule: ModuloSchedule, shift: float) -> list[Span]:
    """(start, end, uses, (operation, nano-batch) served) of every placed piece."""
    cut_of = {placed.operation: placed.cut for placed in schedule.placed}
    spans: list[Span] = []
    for placed in schedule.placed:
        piece = problem.operations[placed.operation].cuts[placed.cut][placed.piece]
        if cut_of[placed.operation] != placed.cut:
            raise CheckError("cut", f"operation {placed.operation} is cut in two ways")
        mode = piece.modes[placed.mode]
        begin = placed.start_s + shift
        spans.append((begin, begin + mode.seconds, mode.uses, [(placed.operation, b) for b in piece.batches]))
    return spans


def _check_use(runs: Sequence[tuple[float, float, tuple[tuple[str, int], ...]]], room: float) -> None:
    for at, _, _ in runs:
        taken: dict[str, int] = {}
        for begin, end, uses in runs:
            if begin <= at + room < end:  # what starts within rounding of `at` is there, what ends is not
                for name, amount in uses:
                    taken[name] = taken.get(name, 0) + amount
        for name, amount in taken.items():
            if amount > 1000:
                raise CheckError("resource", f"{amount} thousandths of {name} at {at:.9g} s")
