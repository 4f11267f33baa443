"""Planned paths: few long-lived flows over equal-cost paths, so that the fullest link is as empty as can be.

Hashing (ECMP) may put several long flows on one uplink while others idle. Here every flow gets a path: greedily,
largest first, then by CP-SAT, which minimises the most seconds that any link is kept busy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simtool.errors import InputError
from simtool.hardware.routes import Path, Router, path_loads
from simtool.planners.certificate import DETERMINISTIC_LIMIT, Certificate, fixed_solver

Flow = tuple[int, int, float]  # source rank, target rank, bytes
_SCALE = 1_000_000  # loads as whole numbers, of the greedy plan's fullest link


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPlan:
    """paths: (source, target) → path, as a Router takes them. busiest_s: seconds of the fullest link.

    hashed_s, greedy_s: the same of the router's own paths and of the greedy plan.
    """

    paths: dict[tuple[int, int], Path]
    busiest_s: float
    hashed_s: float
    greedy_s: float
    certificate: Certificate


def plan_paths(router: Router, flows: Sequence[Flow], *, limit: float = DETERMINISTIC_LIMIT) -> PathPlan:
    """A path for each flow, never worse than hashing or greedy. InputError for double pairs. limit: solver units."""
    started = time.monotonic()
    pairs = [(source, target) for source, target, _ in flows]
    if not flows or len(set(pairs)) < len(pairs):
        raise InputError(pairs, "flows must be there, one for each pair", "add up the bytes of a pair")
    choices = [router.paths(source, target) for source, target in pairs]
    hashed = [router.path(source, target) for source, target in pairs]
    greedy = _greedy(router, flows, choices)
    best = min(greedy, hashed, key=lambda paths: _busiest(router, flows, paths))
    start = _busiest(router, flows, best)
    found, status, bound = _solve(router, flows, choices, best, start, limit) if start > 0 else (best, "OPTIMAL", 0.0)
    best = min(best, found, key=lambda paths: _busiest(router, flows, paths))
    reached = _busiest(router, flows, best)
    bound = min(bound, reached)
    closed = reached - bound <= len(flows) * start / _SCALE
    certificate = Certificate(
        status="OPTIMAL" if closed else status,
        objective=reached,
        bound=reached if closed else bound,
        gap=0.0 if closed or not reached else (reached - bound) / reached,
        seconds=time.monotonic() - started,
        scope="seconds of the fullest link, one shortest path a flow",
    )
    return PathPlan(
        paths=dict(zip(pairs, best, strict=True)),
        busiest_s=reached,
        hashed_s=_busiest(router, flows, hashed),
        greedy_s=_busiest(router, flows, greedy),
        certificate=certificate,
    )


def _busiest(router: Router, flows: Sequence[Flow], paths: Sequence[Path]) -> float:
    loads = path_loads(router.topology, [(path, flow[2]) for path, flow in zip(paths, flows, strict=True)])
    return max(loads.values(), default=0.0)


def _greedy(router: Router, flows: Sequence[Flow], choices: Sequence[Sequence[Path]]) -> list[Path]:
    """Largest flows first, each on the path whose fullest link stays emptiest."""
    loads = [0.0] * len(router.topology.links)
    chosen: list[Path] = [() for _ in flows]
    for index in sorted(range(len(flows)), key=lambda i: -flows[i][2]):
        amount = flows[index][2]

        def fullest(path: Path, amount: float = amount) -> tuple[float, float]:
            after = [loads[link] + amount / router.topology.links[link].bytes_per_s for link in path]
            return max(after, default=0.0), sum(after)

        chosen[index] = min(choices[index], key=fullest)
        for link in chosen[index]:
            loads[link] += amount / router.topology.links[link].bytes_per_s
    return chosen


def _solve(
    router: Router,
    flows: Sequence[Flow],
    choices: Sequence[Sequence[Path]],
    hint: Sequence[Path],
    start: float,
    limit: float,
) -> tuple[list[Path], str, float]:
    """(paths, status, bound in seconds)."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    top = model.new_int_var(0, 2 * _SCALE, "top")
    loads: dict[int, list[Any]] = {}
    taken: list[list[Any]] = []
    for index, (paths, flow) in enumerate(zip(choices, flows, strict=True)):
        taken.append([model.new_bool_var(f"{index}.{place}") for place in range(len(paths))])
        model.add_exactly_one(taken[-1])
        for path, chosen in zip(paths, taken[-1], strict=True):
            model.add_hint(chosen, path == hint[index])
            for link in path:  # rounded down, so that the bound stays valid
                cost = int(_SCALE * flow[2] / router.topology.links[link].bytes_per_s / start)
                loads.setdefault(link, []).append(cost * chosen)
    for terms in loads.values():
        model.add(sum(terms) <= top)
    model.minimize(top)
    solver = fixed_solver(limit)
    status = solver.solve(model)
    name, bound = str(solver.status_name(status)), float(solver.best_objective_bound) * start / _SCALE
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return list(hint), name, bound
    return (
        [
            next(path for path, chosen in zip(paths, row, strict=True) if solver.value(chosen))
            for paths, row in zip(choices, taken, strict=True)
        ],
        name,
        bound,
    )
