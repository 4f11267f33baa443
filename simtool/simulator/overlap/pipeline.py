"""Pipeline schedules as task graphs: GPipe-like inference, 1F1B, interleaved 1F1B, zero-bubble and DualPipe.

A schedule is the order of passes on each rank. When they run follows from what they wait for.
Sources: 1F1B and interleaved 1F1B, Narayanan et al. (arXiv 2104.04473); ZB-H1, Qi et al. (arXiv 2401.10241);
DualPipe, DeepSeek-V3 (arXiv 2412.19437, section 3.2.1) and its published code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from simtool.errors import InputError
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.task import Task
from simtool.simulator.tasks.timeline import Timeline

Kind = Literal["F", "B", "W", "BW", "FB"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTimes:
    """Seconds of one micro-batch on one rank. backward_s: all of it, weight_s is the part for the weights' gradients.

    both_s: a forward and a backward pass that overlap (DualPipe). transfer_s: to the next rank.
    """

    forward_s: float
    backward_s: float = 0.0
    weight_s: float = 0.0
    both_s: float = 0.0
    transfer_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pass:
    """kind: F forward, B backward of inputs, W of weights, BW both, FB a forward beside a backward pass of `other`.

    flow: which way micro-batches go, 0 from the first rank to the last. stage: where on that way, as a position.
    """

    kind: Kind
    flow: int
    batch: int
    stage: int
    other: tuple[int, int] = (0, 0)  # (flow, batch) of the backward pass of FB


Orders = list[list[Pass]]  # by rank


def forward_only(ranks: int, batches: int) -> Orders:
    """Inference: each micro-batch goes through all ranks."""
    return [[Pass("F", 0, batch, rank) for batch in range(batches)] for rank in range(ranks)]


def one_f_one_b(ranks: int, batches: int) -> Orders:
    """1F1B: a rank runs ahead by as many micro-batches as ranks follow it, then turns about."""
    orders = []
    for rank in range(ranks):

        def backward(batch: int, rank: int = rank) -> list[Pass]:
            return [Pass("BW", 0, batch, rank)]

        orders.append(_alternate(batches, min(batches, ranks - rank - 1), backward, rank))
    return orders


def zero_bubble(ranks: int, batches: int) -> Orders:
    """ZB-H1: as 1F1B, but rank r does its weights' gradients r micro-batches later, which lets gradients go first."""
    orders = []
    for rank in range(ranks):

        def backward(batch: int, rank: int = rank) -> list[Pass]:
            late = [Pass("W", 0, batch - rank, rank)] if batch >= rank else []
            return [Pass("B", 0, batch, rank), *late]

        order = _alternate(batches, min(batches, ranks - rank - 1), backward, rank)
        orders.append(order + [Pass("W", 0, batch, rank) for batch in range(max(0, batches - rank), batches)])
    return orders


def interleaved(ranks: int, batches: int, chunks: int) -> Orders:
    """Interleaved 1F1B: each rank holds `chunks` parts of the model; micro-batches go in groups of `ranks`."""
    if batches % ranks:
        raise InputError(batches, f"micro-batches must be a multiple of the {ranks} ranks for an interleaved schedule")
    forward = [
        (group + one, chunk) for group in range(0, batches, ranks) for chunk in range(chunks) for one in range(ranks)
    ]
    backward = [(batch, chunks - 1 - chunk) for batch, chunk in forward]
    orders = []
    for rank in range(ranks):
        ahead = min(len(forward), 2 * (ranks - rank - 1) + (chunks - 1) * ranks)
        order = [Pass("F", 0, batch, chunk * ranks + rank) for batch, chunk in forward]
        back = [Pass("BW", 0, batch, chunk * ranks + rank) for batch, chunk in backward]
        turns = [one for pair in zip(order[ahead:], back, strict=False) for one in pair]
        orders.append([*order[:ahead], *turns, *back[len(order) - ahead :]])
    return orders


def _alternate(batches: int, ahead: int, backward: Callable[[int], list[Pass]], rank: int) -> list[Pass]:
    order = [Pass("F", 0, batch, rank) for batch in range(ahead)]
    for batch in range(batches):
        if batch + ahead < batches:
            order.append(Pass("F", 0, batch + ahead, rank))
        order += backward(batch)
    return order


def pipeline_graph(orders: Orders, times: PassTimes) -> TaskGraph:
    """The schedule as tasks: a stream a rank, and what passes wait for."""
    stages = 1 + max(one.stage for order in orders for one in order)
    index: dict[tuple[str, int, int, int], int] = {}
    flat = [(rank, one) for rank, order in enumerate(orders) for one in order]
    for place, (_, one) in enumerate(flat):
        for name, flow, batch in _does(one):
            index[name, flow, batch, one.stage if flow == one.flow else stages - 1 - one.stage] = place
    tasks = [_task(rank, one, times, index, stages) for rank, one in flat]
    return TaskGraph(resources=(), tasks=tuple(tasks))


def _does(one: Pass) -> list[tuple[str, int, int]]:
    """(F, B or W; flow; batch) of a pass."""
    if one.kind == "FB":
        flow, batch = one.other
        return [("F", one.flow, one.batch), ("B", flow, batch), ("W", flow, batch)]
    return [(part, one.flow, one.batch) for part in one.kind]


def _task(rank: int, one: Pass, times: PassTimes, index: dict[tuple[str, int, int, int], int], stages: int) -> Task:
    seconds = {
        "F": times.forward_s,
        "B": times.backward_s - times.weight_s,
        "W": times.weight_s,
        "BW": times.backward_s,
        "FB": times.both_s or times.forward_s + times.backward_s,
    }[one.kind]
    waits: list[int] = []
    for name, flow, batch in _does(one):
        stage = one.stage if flow == one.flow else stages - 1 - one.stage
        if name == "F" and stage > 0:
            waits.append(index["F", flow, batch, stage - 1])
        elif name == "B":
            waits.append(index["F", flow, batch, stage])
            if stage < stages - 1:
                waits.append(index["B", flow, batch, stage + 1])
        elif name == "W" and one.kind == "W":
            waits.append(index["B", flow, batch, stage])
    moved = times.transfer_s if one.kind != "W" and (one.stage or one.kind != "F") else 0.0
    return Task(
        name=f"{one.kind}{one.batch}" + ("'" if one.flow else ""),
        stream=f"rank {rank}",
        after=tuple(sorted(set(waits))),
        latency_s=moved,
        shortest_s=seconds,
        family=one.kind,
    )


def bubble_s(timeline: Timeline) -> float:
    """Seconds that the rank which waits most waits between the start and the end of a schedule."""
    busy: dict[str, float] = {}
    for task in timeline.graph.tasks:
        busy[task.stream] = busy.get(task.stream, 0.0) + task.shortest_s + task.latency_s
    return timeline.makespan_s - min(busy.values())
