"""A modulo schedule as the tasks of some layers on streams, for the simulator of task graphs and for the executor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from simtool.planners.schedule.curves import DEVICE
from simtool.planners.schedule.layer import FULL, LayerProblem, ModuloSchedule, Piece
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import Resource, Task

Span = tuple[float, float, int]  # planned start and end, task
_LAYERS = 48


def unrolled(
    problem: LayerProblem, schedule: ModuloSchedule, layers: int, held: Sequence[str] = (DEVICE,)
) -> TaskGraph:
    """`layers` layers as tasks in the order of their planned starts, on as many streams as run at once.

    A piece holds its share of `held` resources (multiprocessors) for its mode's seconds, and moves its share of the
    others through servers of rate FULL: if they are short, it slows. It waits for the pieces before it, and for those
    that it was planned to follow on a resource (an event between streams). Names: layer.operation.first nano-batch.
    """
    close = 1e-9 * schedule.period_s * (layers + 1)
    streams: list[tuple[float, int]] = []  # (planned end of the last task, its index)
    tasks: list[Task] = []
    served: dict[tuple[int, int, int], int] = {}  # (layer, operation, nano-batch) → task
    last: dict[str, list[Span]] = {}  # by resource: what has not ended or must be waited for
    for start, layer, index in _in_order(schedule, layers):
        placed = schedule.placed[index]
        piece = schedule.piece(problem, placed)
        mode = piece.modes[placed.mode]
        after = _precedents(problem, placed.operation, piece, layer, served)
        for name, _ in mode.uses:
            last[name] = _not_implied(last.get(name, []), start + close, close)
            after |= {task for _, end, task in last[name] if end <= start + close}
            last[name].append((start, start + mode.seconds, len(tasks)))
        stream = _stream(streams, start + close, after)
        streams[stream] = (start + mode.seconds, len(tasks))
        served |= {(layer, placed.operation, batch): len(tasks) for batch in piece.batches}
        operation = problem.operations[placed.operation].name
        tasks.append(
            Task(
                name=f"{layer}.{operation}.{piece.batches[0]}",
                stream=f"stream {stream}",
                after=tuple(sorted(after)),
                shortest_s=mode.seconds,
                holds={name: float(amount) for name, amount in mode.uses if name in held},
                work={name: amount * mode.seconds for name, amount in mode.uses if name not in held},
                family=operation,
            )
        )
    resources = tuple(Resource(name=name, rate=float(FULL)) for name in problem.resources)
    return TaskGraph(resources=resources, tasks=tuple(tasks))


def _in_order(schedule: ModuloSchedule, layers: int) -> list[tuple[float, int, int]]:
    """(planned start, layer, place among the placed) of all pieces."""
    return sorted(
        (placed.start_s + layer * schedule.period_s, layer, index)
        for layer in range(layers)
        for index, placed in enumerate(schedule.placed)
    )


def _precedents(
    problem: LayerProblem, operation: int, piece: Piece, layer: int, served: Mapping[tuple[int, int, int], int]
) -> set[int]:
    """Tasks of the same nano-batches that a piece waits for: those before it, or the whole layer before."""
    before = [first for first, after in problem.precedences if after == operation]
    if before:
        return {served[layer, first, batch] for first in before for batch in piece.batches}
    every = range(len(problem.operations))
    return {served[layer - 1, first, batch] for first in every for batch in piece.batches} if layer else set()


def _not_implied(spans: list[Span], now: float, close: float) -> list[Span]:
    """Without tasks that another one, ended by now, was planned to follow: to wait for that one is enough."""
    latest = max((start for start, end, _ in spans if end <= now), default=-1.0)
    return [span for span in spans if span[1] > latest + close]


def _stream(streams: list[tuple[float, int]], now: float, after: set[int]) -> int:
    """A stream that is free by the plan: that of a task it waits for, else the first, else a new one."""
    free = [place for place, (end, _) in enumerate(streams) if end <= now]
    if not free:
        streams.append((0.0, -1))
        return len(streams) - 1
    return min(free, key=lambda place: (streams[place][1] not in after, place))


def simulated_period_s(problem: LayerProblem, schedule: ModuloSchedule, layers: int = _LAYERS) -> float:
    """Seconds a layer takes in the simulation of `layers`, once it repeats: the mean over the middle half."""
    graph = unrolled(problem, schedule, layers)
    end_s = np.zeros(layers)
    for task, end in zip(graph.tasks, simulate_tasks(graph).end_s, strict=True):
        layer = int(task.name.split(".", 1)[0])
        end_s[layer] = max(end_s[layer], end)
    first, last = layers // 4, 3 * layers // 4
    return float((end_s[last] - end_s[first]) / (last - first))
