"""Certificate: what a solver proved about its model, and how far the proof reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SEED = 7
DETERMINISTIC_LIMIT = 20.0  # CP-SAT's own work units (about seconds), so that a run repeats exactly
WORKERS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A solver's claim. It covers the model that was solved (`scope` says which), not the truth of that model.

    objective: value of the solution found; bound: no solution of the model is better; gap: their relative distance.
    """

    status: str
    objective: float
    bound: float
    gap: float
    seconds: float
    scope: str
    seed: int = SEED
    workers: int = WORKERS
    deterministic_limit: float = DETERMINISTIC_LIMIT

    @property
    def closed(self) -> bool:
        """Whether the solution is proven best."""
        return self.gap <= 1e-6


def fixed_solver(limit: float = DETERMINISTIC_LIMIT) -> Any:
    """A CP-SAT solver that gives the same answer every time: seed, one worker, a deterministic limit."""
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.random_seed = SEED
    solver.parameters.num_workers = WORKERS
    solver.parameters.max_deterministic_time = limit
    return solver
