"""Branch and bound over the ways to cut a layer: with the cuts fixed CP-SAT proves in seconds what it cannot at large.

An operation that is not cut is a barrier: what comes before it has ended for all nano-batches, what comes after has not
begun. A solver that may still choose the cuts does not see that, and its bound is of a layer cut and whole at once.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

from simtool.planners.schedule.configurations import Cuts
from simtool.planners.schedule.layer import LayerProblem, ModuloSchedule
from simtool.planners.schedule.modulo_model import canonical, hint, modulo_model, read
from simtool.planners.schedule.progress import Effort, Watch, watched_solve
from simtool.planners.schedule.rotation import rotated
from simtool.planners.schedule.ticks import Ticks

_SLICE = 0.03  # share of the effort that a way to cut gets first; it doubles each time that its turn comes again
_RAISED = 1e-3  # of the bound: a turn that raises it by less proves nothing; the next one looks for better schedules
BETTER = ("quick_restart_no_lp", "quick_restart")  # CP-SAT's searches beside each other, for better schedules


@dataclass(slots=True, kw_only=True)
class Branches:
    """lower: ticks that no period is below, of each way to cut that may still be better than the best schedule.

    turns: that each has had. stuck: those whose last turn proved nothing.
    """

    watch: Watch
    lower: dict[Cuts, float]
    turns: dict[Cuts, int] = field(default_factory=dict)
    stuck: set[Cuts] = field(default_factory=set)

    def weakest(self) -> Cuts | None:
        """The way to cut of the least bound, None where all are proven."""
        self.lower = {cuts: bound for cuts, bound in self.lower.items() if math.ceil(bound) < self.watch.objective}
        self.watch.proven(min(self.lower.values(), default=self.watch.objective))
        return min(self.lower, key=lambda cuts: (self.lower[cuts], cuts), default=None)

    def begun(self, cuts: Cuts) -> float:
        """A turn of this way to cut begins: its share of the effort."""
        turns = self.turns.get(cuts, 0)
        self.turns[cuts] = turns + 1
        return min(1.0, _SLICE * 2.0**turns)

    def ended(self, cuts: Cuts, before: float) -> None:
        """A turn has ended; before: the bound when it began."""
        stuck = cuts not in self.stuck and self.lower[cuts] < before * (1.0 + _RAISED)
        self.stuck = self.stuck | {cuts} if stuck else self.stuck - {cuts}


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchWatch:
    """What is proven of one way to cut counts for all where it is the least."""

    branches: Branches
    cuts: Cuts

    @property
    def objective(self) -> float:
        """Of the best schedule, however cut."""
        return self.branches.watch.objective

    def found(self, objective: float) -> None:
        """A schedule."""
        self.branches.watch.found(objective)

    def proven(self, bound: float) -> None:
        """A bound on this way to cut."""
        lower = self.branches.lower
        lower[self.cuts] = max(lower[self.cuts], bound)
        self.branches.watch.proven(min(lower.values()))


def search_branches(
    problem: LayerProblem,
    schedule: ModuloSchedule,
    ticks: Ticks,
    branches: Branches,
    effort: Effort,
    proving: tuple[str, ...],
) -> ModuloSchedule:
    """Work on the way to cut that holds the bound down, until none is left or the effort is spent.

    schedule: the best so far, in ticks, as the result. proving: CP-SAT's searches beside each other, for bounds.
    """
    left, until = effort.limit, time.monotonic() + effort.wall_s
    while (cuts := branches.weakest()) is not None and left > 0:
        part = effort.part(branches.begun(cuts))
        part = replace(part, limit=min(part.limit, left), wall_s=min(part.wall_s, until - time.monotonic()))
        if effort.wall_s > 0 >= part.wall_s:
            break
        before = branches.lower[cuts]
        searches = BETTER if cuts in branches.stuck else proving
        watch = BranchWatch(branches=branches, cuts=cuts)
        better, spent = improved(problem, schedule, ticks, cuts, watch, part, searches)
        schedule, left = better or schedule, left - spent
        branches.ended(cuts, before)
    return schedule


def improved(
    problem: LayerProblem,
    schedule: ModuloSchedule,
    ticks: Ticks,
    cuts: Cuts,
    watch: BranchWatch,
    effort: Effort,
    searches: tuple[str, ...],
) -> tuple[ModuloSchedule | None, float]:
    """(a schedule better than `schedule`, cut like this, if one is found; deterministic seconds spent)."""
    own = cut_as(problem, cuts)
    turned = rotated(own)
    layer = turned.problem if turned else own
    low, high = max(1, math.ceil(watch.branches.lower[cuts])), round(watch.objective)
    alike = cuts_of(schedule) == cuts
    found = modulo_model(layer, ticks, low, high if alike else high - 1)
    if alike:
        mine = replace(schedule, placed=tuple(replace(placed, cut=0) for placed in schedule.placed))
        hint(found, layer, canonical(layer, turned.forth(mine) if turned else mine), ticks)
    solver, status = watched_solve(found.model, watch, effort, searches)
    spent = float(solver.response_proto.deterministic_time)
    if status not in ("OPTIMAL", "FEASIBLE"):
        return None, spent
    better = read(found, layer, solver, ticks)
    better = turned.back(better) if turned else better
    placed = tuple(replace(placed, cut=cuts[placed.operation]) for placed in better.placed)
    return replace(better, placed=placed), spent


def cuts_of(schedule: ModuloSchedule) -> Cuts:
    """How a schedule cuts each operation."""
    return tuple(cut for _, cut in sorted({(placed.operation, placed.cut) for placed in schedule.placed}))


def cut_as(problem: LayerProblem, cuts: Cuts) -> LayerProblem:
    """The layer with one way to cut each operation."""
    return replace(
        problem,
        operations=tuple(
            replace(operation, cuts=(operation.cuts[cut],))
            for operation, cut in zip(problem.operations, cuts, strict=True)
        ),
    )
