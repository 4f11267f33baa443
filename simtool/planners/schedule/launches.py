"""A solved step as a StepSchedule: the launches that its simulation made, layer by layer, for the executor."""

from __future__ import annotations

from collections.abc import Sequence

from simtool.errors import InputError
from simtool.plan import Parallel
from simtool.planners.schedule.layer import LayerProblem, ModuloSchedule, PlacedPiece
from simtool.planners.schedule.step_plan import SolvedLayer, SolvedStep
from simtool.planners.schedule.unroll import unrolled
from simtool.simulator.tasks.task import Task
from simtool.step_schedule import KindSchedule, Launch, StepSchedule


def step_schedule(solved: SolvedStep, model: str, batch: str, parallel: Parallel) -> StepSchedule:
    """The launches of all layers. InputError where kinds of layers are cut in unlike numbers of nano-batches.

    A kind that does not overlap, or that is best whole, is launched for all nano-batches at once.
    """
    counts = sorted({layer.problem.batches for layer in solved.layers} - {1})
    if len(counts) > 1:
        rule = "kinds of layers are best in unlike numbers of nano-batches, and a step is cut once"
        raise InputError(" and ".join(map(str, counts)), rule, "leave --schedule out, or another --batch")
    many = counts[0] if counts else 1
    return StepSchedule(
        model=model,
        batch=batch,
        tp=parallel.tp,
        pp=parallel.pp,
        dp=parallel.dp,
        ep=parallel.ep,
        nano_batches=many,
        kinds=tuple(_kind(layer, many) for layer in solved.layers),
    )


def _kind(layer: SolvedLayer, many: int) -> KindSchedule:
    rows = [tuple(operation.name.split("+")) for operation in layer.problem.operations]
    count = layer.time.kind.count
    return KindSchedule(
        layers=count,
        operators=tuple(name for row in rows for name in row),
        launches=_launches(layer.problem, layer.schedule, count, rows, many, events=layer.events),
    )


def _launches(
    problem: LayerProblem,
    schedule: ModuloSchedule,
    layers: int,
    names: Sequence[tuple[str, ...]],
    many: int,
    *,
    events: bool,
) -> tuple[Launch, ...]:
    made: list[PlacedPiece] = []

    def parts(placed: PlacedPiece) -> list[Task]:
        made.append(placed)
        return [Task(name="launch")]

    graph = unrolled(problem, schedule, layers, parts, events=events)
    launches = []
    for task, placed in zip(graph.tasks, made, strict=True):
        batches = schedule.piece(problem, placed).batches if problem.batches == many else tuple(range(many))
        launches.append(
            Launch(
                layer=int(task.name[1:].split(".", 1)[0]),
                operators=names[placed.operation],
                nano_batches=batches,
                stream=int(task.stream.removeprefix("stream ")),
                after=tuple(task.after),
            )
        )
    return tuple(launches)
