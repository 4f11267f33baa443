"""What a solver knew after how long, and the solver that says so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from simtool.planners.certificate import DETERMINISTIC_LIMIT, WORKERS, fixed_solver
from simtool.planners.schedule.ticks import Ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """After `seconds`: the best value found and the bound on any (both in seconds of the schedule)."""

    seconds: float
    objective: float
    bound: float

    @property
    def gap(self) -> float:
        """Relative distance of objective and bound."""
        return max(0.0, self.objective - self.bound) / self.objective if self.objective > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """limit: the solver's deterministic seconds. With one worker a run repeats exactly; with more it need not.

    wall_s: seconds after which the search ends in any case, where above 0; then no run need repeat.
    """

    limit: float = DETERMINISTIC_LIMIT
    workers: int = WORKERS
    wall_s: float = 0.0

    def part(self, share: float) -> Effort:
        """A share of the limits."""
        return replace(self, limit=share * self.limit, wall_s=share * self.wall_s)

    def after(self, seconds: float) -> Effort:
        """What is left of wall_s, a tenth of it at least: 0 would be no limit."""
        return replace(self, wall_s=max(self.wall_s - seconds, 0.1 * self.wall_s))


@dataclass(slots=True, kw_only=True)
class Watch:
    """Keeps (seconds, objective, bound) in ticks whenever either improves; begins at the baseline's."""

    objective: float
    bound: float
    started: float = field(default_factory=time.monotonic)
    rows: list[tuple[float, float, float]] = field(default_factory=list)

    def found(self, objective: float) -> None:
        """A schedule."""
        if objective < self.objective:
            self.objective = objective
            self._note()

    def proven(self, bound: float) -> None:
        """A bound."""
        if bound > self.bound:
            self.bound = min(bound, self.objective)
            self._note()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def history(self, ticks: Ticks) -> tuple[Progress, ...]:
        """All rows in seconds of the schedule."""
        return tuple(
            Progress(seconds=at, objective=objective * ticks.seconds, bound=ticks.bound_s(bound))
            for at, objective, bound in self.rows
        )

    def _note(self) -> None:
        self.rows.append((self.seconds, self.objective, self.bound))


class Watching(Protocol):
    """Who is told what a solver finds and proves, in ticks."""

    @property
    def objective(self) -> float:
        """Of the best schedule."""

    def found(self, objective: float) -> None:
        """A schedule."""

    def proven(self, bound: float) -> None:
        """A bound."""


def watched_solve(model: Any, watch: Watching, effort: Effort, searches: Sequence[str] = ()) -> tuple[Any, str]:
    """Solve with a fixed seed; returns the solver and its status.

    searches: CP-SAT's names of what each worker does (none: its own choice, several by turns, which repeats).
    """
    from ortools.sat.python import cp_model

    class Noted(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            watch.found(self.objective_value)

    solver = fixed_solver(effort.limit)
    solver.parameters.num_workers = effort.workers
    if searches:
        solver.parameters.subsolvers.extend(searches[: effort.workers])
    else:
        solver.parameters.interleave_search = effort.workers > 1
    if effort.wall_s > 0:
        solver.parameters.max_time_in_seconds = effort.wall_s
    solver.best_bound_callback = watch.proven
    status = str(solver.status_name(solver.solve(model, Noted())))
    if status in ("OPTIMAL", "FEASIBLE"):
        watch.found(solver.objective_value)
    if status != "MODEL_INVALID":
        watch.proven(watch.objective if status in ("OPTIMAL", "INFEASIBLE") else solver.best_objective_bound)
    return solver, status
