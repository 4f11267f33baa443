"""The leaves that ETS keeps, by CP-SAT, never worse than keeping all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

from simtool.errors import SimtoolError
from simtool.planners.certificate import DETERMINISTIC_LIMIT, Certificate, fixed_solver
from simtool.planners.programs.ets_problem import EtsProblem, ets_value

_SCOPE = "the value of leaves kept at one depth; not the answers that later depths find"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtsChoice:
    """kept: leaves, in order. value: exact. all_value: of keeping every leaf, as REBASE does."""

    kept: tuple[int, ...]
    value: Fraction
    all_value: Fraction
    certificate: Certificate


def choose_leaves(problem: EtsProblem, limit: float = DETERMINISTIC_LIMIT) -> EtsChoice:
    """The best leaves found within a deterministic limit, from keeping all on."""
    everything = tuple(range(len(problem.above)))
    all_value = ets_value(problem, everything)
    scale = math.lcm(*(term.denominator for term in problem.terms))
    model, keep = _model(problem, [int(term * scale) for term in problem.terms])
    solver = fixed_solver(limit)
    status = solver.status_name(solver.solve(model))
    kept, value = everything, all_value
    if status in ("OPTIMAL", "FEASIBLE"):
        found = tuple(leaf for leaf in everything if solver.value(keep[leaf]))
        value = ets_value(problem, found)
        if status == "OPTIMAL" and value * scale != round(solver.objective_value):
            raise SimtoolError(f"the model says {solver.objective_value}, the tree {value * scale}")
        kept, value = max((found, value), (everything, all_value), key=lambda pair: pair[1])
    bound = value if status == "OPTIMAL" else max(value, Fraction(round(solver.best_objective_bound), scale))
    return EtsChoice(
        kept=kept,
        value=value,
        all_value=all_value,
        certificate=Certificate(
            status=status,
            objective=float(value),
            bound=float(bound),
            gap=float((bound - value) / max(abs(value), Fraction(1, scale))),
            seconds=solver.wall_time,
            scope=_SCOPE,
            deterministic_limit=limit,
        ),
    )


def _model(problem: EtsProblem, terms: list[int]) -> tuple[Any, list[Any]]:
    """Booleans x (leaf kept), y (inner node held), cov (cluster covered), and the objective in whole units."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    keep = [model.new_bool_var(f"x{leaf}") for leaf in range(len(problem.above))]
    held = [model.new_bool_var(f"y{node}") for node in range(len(problem.parent))]
    below: list[list[Any]] = [[] for _ in held]
    for up, chosen in chain(zip(problem.above, keep, strict=True), zip(problem.parent, held, strict=True)):
        if up >= 0:
            below[up].append(chosen)
            model.add_implication(chosen, held[up])  # y_j ≥ x_i of all leaves below, node by node
    for node, chosen_below in enumerate(below):
        model.add(held[node] <= sum(chosen_below))
    covered = []
    for number in sorted(set(problem.cluster)):
        mark = model.new_bool_var(f"cov{number}")
        model.add_bool_or([*(x for x, own in zip(keep, problem.cluster, strict=True) if own == number), ~mark])
        covered.append(mark)
    model.add_bool_or(keep)
    worth, cost, coverage = terms
    gains = sum(share * worth * chosen for share, chosen in zip(problem.shares, keep, strict=True))
    model.maximize(gains - cost * (sum(held) + sum(keep)) + coverage * sum(covered))
    for chosen in keep:
        model.add_hint(chosen, True)
    return model, keep
