"""Configurations: which pieces can run at one moment. Time spent in each covers every piece's time.

That is the configuration program of bin packing (Gilmore, Gomory, Operations Research 9, 1961), with order: pieces of
one nano-batch that wait for each other never share a moment, and a nano-batch is in one layer at a time. Its relaxation
sees what no single resource shows: pairs that fill neither the device nor the memory and still do not fit together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from simtool.planners.schedule.layer import FULL, LayerProblem, Piece
from simtool.planners.schedule.modulo_model import interchangeable
from simtool.planners.schedule.progress import Effort
from simtool.planners.schedule.rotation import ordered
from simtool.planners.schedule.ticks import Ticks

PieceMode = tuple[int, int, int, int]  # operation, cut, piece, mode
Cuts = tuple[int, ...]  # a way to cut a layer: the cut of each operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What runs in one mode for `batches`. members: one piece, or those of any one nano-batch where all are alike."""

    members: tuple[PieceMode, ...]
    batches: tuple[int, ...]
    uses: tuple[int, ...]

    @property
    def operation(self) -> int:
        """Its operation."""
        return self.members[0][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configurations:
    """sets: places of items, one of which may be there for several nano-batches; none of them can be added to."""

    items: tuple[Item, ...]
    sets: tuple[tuple[int, ...], ...]


_MOST_CUTS = 1024  # ways to cut whose bounds are made one by one, some milliseconds each
_MOST = 4000  # sets; more take many seconds to list
_NODES = 100  # of the search tree, a deterministic second: about what SCIP does in one on these programs
_SAFE = 1e-6  # SCIP's feasibility tolerance, relative: taken off its bound


def listed_configurations(problem: LayerProblem) -> Configurations | None:
    """All configurations, for the bounds; None where there are too many of them."""
    return configurations(problem, alike=interchangeable(problem), most=_MOST)


def configuration_bound(problem: LayerProblem, known: Configurations | None, ticks: Ticks, effort: Effort) -> float:
    """Ticks that no period is below; `energy_bound` where there are too many configurations.

    Modes and cuts are chosen as in a schedule; what is left out is when the configurations come. SCIP's node limit
    follows effort.limit, so that without wall_s the bound repeats exactly.
    """
    from ortools.linear_solver import pywraplp

    least = energy_bound(problem, ticks)
    solver = pywraplp.Solver.CreateSolver("SCIP")
    if known is None or solver is None:
        return least
    _program(solver, problem, known, ticks, whole=True)
    solver.SetSolverSpecificParametersAsString(f"limits/totalnodes = {max(1, round(_NODES * effort.limit))}")
    if effort.wall_s > 0:
        solver.SetTimeLimit(max(1, round(1000 * effort.wall_s)))
    status = solver.Solve()
    bound = float(solver.Objective().BestBound())
    if status == pywraplp.Solver.INFEASIBLE or not math.isfinite(bound):
        return least
    return max(least, bound * (1.0 - _SAFE))


def energy_bound(problem: LayerProblem, ticks: Ticks) -> float:
    """Ticks that the fullest resource is busy, each piece in the cut and the mode that spare it most."""

    def energy(piece: Piece, name: str) -> int:
        return min(ticks.up(mode.seconds) * mode.used(name) for mode in piece.modes)

    taken = [
        sum(min(sum(energy(piece, name) for piece in cut) for cut in one.cuts) for one in problem.operations)
        for name in problem.resources
    ]
    return max(taken, default=0) / FULL


def cut_bounds(problem: LayerProblem, known: Configurations | None, ticks: Ticks) -> dict[Cuts, float]:
    """Ticks that no period is below, for each way to cut: the same program where modes may be mixed.

    Empty where there are too many ways or too many configurations.
    """
    from ortools.linear_solver import pywraplp

    if math.prod(len(operation.cuts) for operation in problem.operations) > _MOST_CUTS:
        return {}
    solver = pywraplp.Solver.CreateSolver("GLOP")
    if known is None or solver is None:
        return {}
    chosen = _program(solver, problem, known, ticks, whole=False)
    found: dict[Cuts, float] = {}
    for cuts in product(*(range(len(operation.cuts)) for operation in problem.operations)):
        for place, row in enumerate(chosen):
            for cut, x in enumerate(row):
                x.SetBounds(float(cut == cuts[place]), float(cut == cuts[place]))
        solved = solver.Solve() == pywraplp.Solver.OPTIMAL
        found[cuts] = solver.Objective().Value() * (1.0 - _SAFE) if solved else 0.0
    return found


def _program(
    solver: Any, problem: LayerProblem, known: Configurations, ticks: Ticks, *, whole: bool
) -> list[list[Any]]:
    """Minimise the time spent in configurations, in ticks; the variables of the cuts. whole: a piece has one mode."""
    spent = [solver.NumVar(0.0, solver.infinity(), f"y{number}") for number in range(len(known.sets))]
    covering: list[list[Any]] = [[] for _ in known.items]
    for time, places in zip(spent, known.sets, strict=True):
        for place in places:
            covering[place].append(time)
    modes: dict[PieceMode, Any] = {}  # by an item's first piece: how many of its pieces run in the mode
    for item, times in zip(known.items, covering, strict=True):
        first = item.members[0]
        modes[first] = solver.Var(0, len(item.members), whole, "m{}_{}_{}_{}".format(*first))
        size = ticks.up(problem.operations[first[0]].cuts[first[1]][first[2]].modes[first[3]].seconds)
        solver.Add(solver.Sum(times) >= size * modes[first])
    chosen: list[list[Any]] = []
    for place, operation in enumerate(problem.operations):
        cuts = [solver.Var(0, 1, whole, f"c{place}_{cut}") for cut in range(len(operation.cuts))]
        chosen.append(cuts)
        solver.Add(solver.Sum(cuts) == 1)
        for item in known.items:
            cut, index, number = item.members[0][1:]
            if item.operation == place and number == 0:
                every = range(len(operation.cuts[cut][index].modes))
                running = solver.Sum([modes[place, cut, index, number] for number in every])
                solver.Add(running == len(item.members) * cuts[cut])
    solver.Minimize(solver.Sum(spent))
    return chosen


def configurations(problem: LayerProblem, *, alike: bool, most: int) -> Configurations | None:
    """All configurations that nothing can be added to; None where there are more than `most`.

    alike: nano-batches may swap names, so that sets that differ in names alone are one.
    """
    search = _Search(problem=problem, items=_items(problem, alike=alike), alike=alike, apart=_apart(problem))
    sets: list[tuple[int, ...]] = []
    for found in search.sets(0, [], (0,) * len(problem.resources)):
        sets.append(found)
        if len(sets) > most:
            return None
    return Configurations(items=search.items, sets=tuple(sorted(set(sets))))


def _items(problem: LayerProblem, *, alike: bool) -> tuple[Item, ...]:
    items = []
    for place, operation in enumerate(problem.operations):
        for cut, pieces in enumerate(operation.cuts):
            groups = [range(len(pieces))] if alike else [range(index, index + 1) for index in range(len(pieces))]
            for group in groups:
                piece = pieces[group[0]]
                for number, mode in enumerate(piece.modes):
                    members = tuple((place, cut, index, number) for index in group)
                    uses = tuple(mode.used(name) for name in problem.resources)
                    items.append(Item(members=members, batches=piece.batches, uses=uses))
    return tuple(items)


def _apart(problem: LayerProblem) -> list[set[int]]:
    """By operation: those that never run at the same time for the same nano-batch, itself among them."""
    after = ordered(problem)
    count = len(after)
    return [
        {place} | after[place] | {other for other in range(count) if place in after[other]} for place in range(count)
    ]


Chosen = list[tuple[int, tuple[int, ...]]]  # (item, nano-batches) in the order of the first of them


@dataclass(slots=True, kw_only=True)
class _Search:
    """Nano-batch after nano-batch, all that can run for it beside what was chosen before."""

    problem: LayerProblem
    items: tuple[Item, ...]
    alike: bool
    apart: list[set[int]]

    def sets(
        self, batch: int, chosen: Chosen, used: tuple[int, ...], least: Sequence[int] = ()
    ) -> Iterator[tuple[int, ...]]:
        """Sets from what was chosen for the nano-batches before `batch`. least: items of the one before, if alike."""
        if batch == self.problem.batches:
            if not self._more(chosen, used):
                yield tuple(sorted(item for item, _ in chosen))
            return
        for own, after in self._states(batch, chosen, used, 0):
            small = [item for item, served in own if len(served) == 1]
            if self.alike and small < list(least):
                continue
            yield from self.sets(batch + 1, [*chosen, *own], after, small)

    def _states(
        self, batch: int, chosen: Chosen, used: tuple[int, ...], first: int
    ) -> Iterator[tuple[Chosen, tuple[int, ...]]]:
        """What may begin at `batch`, nothing first: (items, what is then used)."""
        yield [], used
        for number in range(first, len(self.items)):
            served = self._served(number, batch)
            if not served:
                continue
            after = self._fits(number, served, chosen, used)
            if after is not None:
                mine = (number, served)
                for more, total in self._states(batch, [*chosen, mine], after, number + 1):
                    yield [mine, *more], total

    def _served(self, number: int, batch: int) -> tuple[int, ...]:
        """Nano-batches of an item that begins at `batch`, () where it does not."""
        batches = self.items[number].batches
        if self.alike and len(batches) == 1:
            return (batch,)
        return batches if batches[0] == batch else ()

    def _fits(
        self, number: int, served: Sequence[int], chosen: Chosen, used: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        """What is used with one more item; None where it does not fit."""
        item = self.items[number]
        for one, more in zip(used, item.uses, strict=True):  # most do not fit: no tuple is made of those
            if one + more > FULL:
                return None
        never = self.apart[item.operation]
        for other, others in chosen:
            if self.items[other].operation in never and not set(served).isdisjoint(others):
                return None
        return tuple(one + more for one, more in zip(used, item.uses, strict=True))

    def _more(self, chosen: Chosen, used: tuple[int, ...]) -> bool:
        """Whether an item could be added."""
        return any(
            self._fits(number, served, chosen, used) is not None
            for batch in range(self.problem.batches)
            for number in range(len(self.items))
            if (served := self._served(number, batch))
        )
