"""CP-SAT model of one period of a repeating layer.

Operation 0 of every nano-batch begins within the period, and a nano-batch's layer takes at most a period (its next one
follows). So every piece lies in [0, 2 periods), and two copies of it, a period apart, show every
conflict of the repeating schedule: all variables are linear in the period. Where operation 0 is one piece, every other
one lies between it and its next run, and needs no copy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from simtool.planners.schedule.layer import FULL, LayerProblem, ModuloSchedule, PlacedPiece
from simtool.planners.schedule.ticks import Ticks

# What a mode of `use` thousandths counts, where all that runs together counts at most 1 (dual feasible functions;
# Fekete, Schepers, Math. Program. 91, 2001): more than FULL - step as 1, less than step as 0, else its share.
_STEPS = (1, 200, 250, 334, 400, 500)


@dataclass(slots=True, kw_only=True)
class ModuloModel:
    """The model and its variables. modes: (operation, cut, piece, mode) → chosen."""

    model: Any
    period: Any
    start: dict[tuple[int, int], Any] = field(default_factory=dict)  # (operation, nano-batch)
    end: dict[tuple[int, int], Any] = field(default_factory=dict)
    again: dict[tuple[int, int], Any] = field(default_factory=dict)  # the start of its copy, a period later, if any
    cuts: dict[tuple[int, int], Any] = field(default_factory=dict)
    modes: dict[tuple[int, int, int, int], Any] = field(default_factory=dict)


def modulo_model(problem: LayerProblem, ticks: Ticks, low: int, high: int) -> ModuloModel:
    """Minimise the period, which is known to be in [low, high] ticks."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    found = ModuloModel(model=model, period=model.new_int_var(low, high, "period"))
    straight = begins_whole(problem)
    last = high if straight else 2 * high
    for place, operation in enumerate(problem.operations):
        for batch in range(problem.batches):
            found.start[place, batch] = model.new_int_var(0, last, f"s{place}_{batch}")
            found.end[place, batch] = model.new_int_var(0, last, f"e{place}_{batch}")
            if not straight:
                found.again[place, batch] = model.new_int_var(0, 3 * high, f"r{place}_{batch}")
                model.add(found.again[place, batch] == found.start[place, batch] + found.period)
        for cut in range(len(operation.cuts)):
            found.cuts[place, cut] = model.new_bool_var(f"c{place}_{cut}")
        model.add_exactly_one(found.cuts[place, cut] for cut in range(len(operation.cuts)))
    _pieces(found, problem, ticks)
    _order(found, problem)
    _resources(found, problem, ticks)
    model.minimize(found.period)
    return found


def _pieces(found: ModuloModel, problem: LayerProblem, ticks: Ticks) -> None:
    """A piece of the chosen cut has one mode; the nano-batches that it serves start and end together."""
    lengths: dict[tuple[int, int], list[Any]] = {key: [] for key in found.start}
    for place, operation in enumerate(problem.operations):
        for cut, pieces in enumerate(operation.cuts):
            for index, piece in enumerate(pieces):
                chosen = []
                for number, mode in enumerate(piece.modes):
                    x = found.model.new_bool_var(f"m{place}_{cut}_{index}_{number}")
                    found.modes[place, cut, index, number] = x
                    chosen.append(x)
                    for batch in piece.batches:
                        lengths[place, batch].append(ticks.up(mode.seconds) * x)
                found.model.add(sum(chosen) == found.cuts[place, cut])
                for batch, other in pairwise(piece.batches):
                    together = found.start[place, batch] == found.start[place, other]
                    found.model.add(together).only_enforce_if(found.cuts[place, cut])
    for key, parts in lengths.items():
        found.model.add(found.end[key] == found.start[key] + sum(parts))


def _order(found: ModuloModel, problem: LayerProblem) -> None:
    """Precedences; a layer of a nano-batch begins with operation 0 and takes at most a period."""
    model = found.model
    for batch in range(problem.batches):
        for before, after in problem.precedences:
            model.add(found.start[after, batch] >= found.end[before, batch])
        model.add(found.start[0, batch] <= found.period - 1)
        for place in range(len(problem.operations)):
            model.add(found.start[place, batch] >= found.start[0, batch])
            model.add(found.end[place, batch] <= found.start[0, batch] + found.period)
    if interchangeable(problem):
        model.add(found.start[0, 0] == 0)
        first = leader(problem)
        for batch in range(problem.batches - 1):
            model.add(found.start[first, batch] <= found.start[first, batch + 1])


def leader(problem: LayerProblem) -> int:
    """The operation whose starts put nano-batches that may swap names in order: the first that is ever cut."""
    many = (place for place, operation in enumerate(problem.operations) if any(len(c) > 1 for c in operation.cuts))
    return next(many, 0)


def begins_whole(problem: LayerProblem) -> bool:
    """Whether operation 0 is one piece, however it is cut."""
    return all(len(cut) == 1 for cut in problem.operations[0].cuts)


def interchangeable(problem: LayerProblem) -> bool:
    """Whether nano-batches may swap names: every cut is one piece, or equal pieces of one nano-batch each."""
    return all(
        len(cut) == 1 or (len(cut) == problem.batches and len({piece.modes for piece in cut}) == 1)
        for operation in problem.operations
        for cut in operation.cuts
    )


def canonical(problem: LayerProblem, schedule: ModuloSchedule) -> ModuloSchedule:
    """The same schedule with its first operation 0 at time 0, and nano-batches that may swap names in order."""
    begin = min(placed.start_s for placed in schedule.placed if placed.operation == 0)
    first = {
        batch: placed.start_s
        for placed in schedule.placed
        if placed.operation == leader(problem)
        for batch in schedule.piece(problem, placed).batches
    }
    order = sorted(first, key=lambda batch: (first[batch], batch))
    rank = {batch: place for place, batch in enumerate(order)} if interchangeable(problem) else {}
    whole = {p.operation for p in schedule.placed if len(problem.operations[p.operation].cuts[p.cut]) == 1}
    placed = [
        replace(
            p,
            start_s=p.start_s - begin,
            piece=rank.get(p.piece, p.piece) if p.operation not in whole else p.piece,
        )
        for p in schedule.placed
    ]
    return replace(schedule, placed=tuple(placed))


def _resources(found: ModuloModel, problem: LayerProblem, ticks: Ticks) -> None:
    model = found.model
    intervals: dict[str, list[tuple[Any, int]]] = {name: [] for name in problem.resources}
    work: dict[tuple[str, int], list[Any]] = {(name, step): [] for name in problem.resources for step in _STEPS}
    for (place, cut, index, number), x in found.modes.items():
        piece = problem.operations[place].cuts[cut][index]
        mode, first = piece.modes[number], (place, piece.batches[0])
        size = ticks.up(mode.seconds)
        tag = f"{place}_{cut}_{index}_{number}"
        copies = [
            model.new_optional_fixed_size_interval_var(at[first], size, x, f"i{tag}{name}")
            for at, name in ((found.start, "a"), (found.again, "b"))
            if first in at
        ]
        for resource, amount in mode.uses:
            intervals[resource] += [(copy, amount) for copy in copies]
            for step in _STEPS:
                work[resource, step].append(size * counted(amount, step) * x)
    for rows in intervals.values():
        model.add_cumulative([interval for interval, _ in rows], [amount for _, amount in rows], FULL)
    for parts in work.values():
        model.add(sum(parts) <= FULL * found.period)


def counted(amount: int, step: int) -> int:
    """Thousandths that a use counts under a dual feasible function."""
    if amount > FULL - step:
        return FULL
    return amount if amount >= step else 0


def hint(found: ModuloModel, problem: LayerProblem, schedule: ModuloSchedule, ticks: Ticks) -> None:
    """Start from a schedule whose starts are whole ticks."""
    used = {(p.operation, p.cut, p.piece, p.mode): round(p.start_s / ticks.seconds) for p in schedule.placed}
    found.model.add_hint(found.period, round(schedule.period_s / ticks.seconds))
    for key, x in found.modes.items():
        found.model.add_hint(x, key in used)
    chosen = {(p.operation, p.cut) for p in schedule.placed}
    for pair, x in found.cuts.items():
        found.model.add_hint(x, pair in chosen)
    for (place, cut, index, number), begin in used.items():
        piece = problem.operations[place].cuts[cut][index]
        for batch in piece.batches:
            found.model.add_hint(found.start[place, batch], begin)
            found.model.add_hint(found.end[place, batch], begin + ticks.up(piece.modes[number].seconds))


def read(found: ModuloModel, problem: LayerProblem, solver: Any, ticks: Ticks) -> ModuloSchedule:
    """The solver's schedule, in seconds."""
    placed = []
    for (place, cut, index, number), x in found.modes.items():
        if solver.value(x):
            begin = solver.value(found.start[place, problem.operations[place].cuts[cut][index].batches[0]])
            start_s = begin * ticks.seconds
            placed.append(PlacedPiece(operation=place, cut=cut, piece=index, mode=number, start_s=start_s))
    return ModuloSchedule(
        period_s=solver.value(found.period) * ticks.seconds,
        placed=tuple(sorted(placed, key=lambda p: (p.start_s, p.operation))),
    )
