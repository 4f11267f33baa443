"""A modulo schedule as the tasks of some layers on streams, for the simulator of task graphs and for the executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from simtool.planners.schedule.kernels import DEVICE, KernelLayer
from simtool.planners.schedule.layer import FULL, LayerProblem, ModuloSchedule, Piece, PlacedPiece
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import Resource, Task

Span = tuple[float, float, int]  # planned start and end, task
Parts = Callable[[PlacedPiece], Sequence[Task]]  # a piece's tasks, one after the other; streams are not theirs to say
_LAYERS = 48


def mode_parts(problem: LayerProblem, schedule: ModuloSchedule) -> Parts:
    """A piece as its mode is tabulated: it holds its share of the device and moves its share of all else."""

    def parts(placed: PlacedPiece) -> list[Task]:
        mode = schedule.piece(problem, placed).modes[placed.mode]
        uses = dict(mode.uses)
        return [
            Task(
                name=problem.operations[placed.operation].name,
                shortest_s=mode.seconds,
                holds={name: float(amount) for name, amount in uses.items() if name == DEVICE},
                work={name: amount * mode.seconds for name, amount in uses.items() if name != DEVICE},
            )
        ]

    return parts


def kernel_parts(
    layer: KernelLayer, problem: LayerProblem, schedule: ModuloSchedule, batches: Sequence[float]
) -> Parts:
    """A piece as its kernels: they compete for multiprocessors, memory and links, and use no more than their share.

    A collective keeps its multiprocessors; another kernel is no faster than on the share of its mode.
    """
    segments = layer.segments()

    def parts(placed: PlacedPiece) -> list[Task]:
        piece = schedule.piece(problem, placed)
        share = piece.modes[placed.mode].share
        return [
            Task(
                name=kernel.name,
                work=kernel.work,
                latency_s=kernel.latency_s,
                shortest_s=layer.slowed(kernel, share) * (kernel.seconds - kernel.latency_s),
                holds={DEVICE: float(layer.comm_sms)} if kernel.family == "collective" and layer.comm_sms else {},
                tiles=kernel.tiles,
                family=kernel.family,
            )
            for kernel in layer.pieces(segments[placed.operation], piece.batches, batches)
        ]

    return parts


def unrolled(
    problem: LayerProblem,
    schedule: ModuloSchedule,
    layers: int,
    parts: Parts,
    resources: Sequence[Resource] = (),
    *,
    events: bool = True,
) -> TaskGraph:
    """`layers` layers as tasks in the order of their planned starts, on as many streams as run at once.

    resources: () where parts are of the problem's own, of rate FULL. A piece waits for those before it; events: and for
    those that it was planned to follow on a resource. Names: L<layer>.<first nano-batch>.<part>.
    """
    close = 1e-9 * schedule.period_s * (layers + 1)
    streams: list[tuple[float, int]] = []  # (planned end of the last task, its index)
    tasks: list[Task] = []
    served: dict[tuple[int, int, int], int] = {}  # (layer, operation, nano-batch) → its last task
    last: dict[str, list[Span]] = {}  # by resource: what has not ended or must be waited for
    for start, layer, index in _in_order(schedule, layers):
        placed = schedule.placed[index]
        piece = schedule.piece(problem, placed)
        own = parts(placed)
        mode, end_task = piece.modes[placed.mode], len(tasks) + len(own) - 1
        after = _precedents(problem, placed.operation, piece, layer, served)
        for name, _ in mode.uses:
            last[name] = _not_implied(last.get(name, []), start + close, close) if events else []
            after |= {task for _, end, task in last[name] if end <= start + close}
            last[name].append((start, start + mode.seconds, end_task))
        stream = _stream(streams, start + close, after)
        streams[stream] = (start + mode.seconds, end_task)
        served |= {(layer, placed.operation, batch): end_task for batch in piece.batches}
        for number, task in enumerate(own):
            name = f"L{layer}.{piece.batches[0]}.{task.name}"
            waits = () if number else tuple(sorted(after))
            tasks.append(replace(task, name=name, stream=f"stream {stream}", after=waits))
    own_rates = tuple(Resource(name=name, rate=float(FULL)) for name in problem.resources)
    return TaskGraph(resources=tuple(resources) or own_rates, tasks=tuple(tasks))


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
    """The period once it repeats, each piece as its mode is tabulated: the mean over the middle half of `layers`."""
    timeline = simulate_tasks(unrolled(problem, schedule, layers, mode_parts(problem, schedule)))
    end_s = np.zeros(layers)
    for task, end in zip(timeline.graph.tasks, timeline.end_s, strict=True):
        layer = int(task.name[1:].split(".", 1)[0])
        end_s[layer] = max(end_s[layer], end)
    first, last = layers // 4, 3 * layers // 4
    return float((end_s[last] - end_s[first]) / (last - first))
