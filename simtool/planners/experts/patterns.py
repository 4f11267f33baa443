"""The least highest load of few experts, proven: what one GPU may hold is listed, CP-SAT picks how often each is used.

GPUs are alike, so a placement is how many of them hold each *pattern* (a set of shares that fills the slots). The load
of a pattern is known before, so the highest load is bisected over the loads that patterns have: exact, no rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.planners.experts.exchange import gpu_loads
from simtool.planners.schedule.progress import Effort, Watch, watched_solve

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Share = tuple[int, int]  # an expert, and how many replicas it has
Pattern = tuple[Share, ...]
_MOST = 3_000  # patterns; more cost the solver minutes before it begins
_CLOSE = 1e-12  # relative distance of equal loads


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """held: [gpus, slots]; no placement has a highest load below `bound`; work: deterministic seconds."""

    held: Places
    bound: float
    work: float


def prove(load: Floats, held: Places, bound: float, effort: Effort) -> Proven | None:
    """The best placement from `held` on; None where there are too many patterns to list."""
    highest = float(gpu_loads(load, held).max())
    listed = list_patterns(load, len(held), held.shape[1], highest * (1 - _CLOSE))
    if listed is None:
        return None
    loads = np.array([sum(load[expert] / number for expert, number in pattern) for pattern in listed])
    order = np.argsort(loads, kind="stable")
    loads, listed = loads[order], [listed[place] for place in order]
    ends = np.append(np.flatnonzero(np.diff(loads) > _CLOSE * highest), len(loads) - 1)  # the last of equal loads
    ends = ends[loads[ends] >= bound * (1 - _CLOSE)] if len(loads) else ends[:0]
    low, high, work = 0, len(ends), 0.0  # ends[high:] are beaten by what is held, those below low reach nothing
    while low < high and work < effort.limit:
        middle = (low + high) // 2
        solved = _pick(listed[: int(ends[middle]) + 1], held, len(load), effort.part(1 - work / effort.limit))
        work += solved.work
        if solved.status not in ("OPTIMAL", "FEASIBLE", "INFEASIBLE"):
            break
        if solved.status == "INFEASIBLE":
            low = middle + 1
        else:
            held, high = solved.held, middle
    proven = float(loads[ends[low]]) if low < len(ends) else highest
    return Proven(held=held, bound=max(bound, min(proven, float(gpu_loads(load, held).max()))), work=work)


def list_patterns(load: Floats, gpus: int, slots: int, highest: float) -> list[Pattern] | None:
    """All ways to fill a GPU with at most the load `highest`; None: more than can be listed."""
    need = np.maximum(1, np.ceil(load / highest * (1 - 1e-12))).astype(np.int64)
    spare = gpus * slots - int(need.sum())
    shares = [(expert, int(low) + more) for expert, low in enumerate(need) for more in range(spare + 1)]
    if spare < 0:
        return []
    if len(shares) > _MOST:
        return None
    shares.sort(key=lambda share: (load[share[0]] / share[1], share))
    found: list[Pattern] = []
    for pattern in _filled(load, shares, slots, highest):
        found.append(pattern)
        if len(found) > _MOST:
            return None
    return found


def _filled(load: Floats, shares: list[Share], slots: int, highest: float) -> Iterator[Pattern]:
    """Patterns with shares in rising order; an expert has one number of replicas throughout."""
    weight = [load[expert] / number for expert, number in shares]

    def more(first: int, left: float, taken: list[Share]) -> Iterator[Pattern]:
        missing = slots - len(taken)
        if not missing:
            yield tuple(taken)
            return
        for place in range(first, len(shares)):
            if weight[place] * missing > left:  # what follows is as heavy or heavier
                return
            share = shares[place]
            fits = all(other == share or other[0] != share[0] for other in taken)
            if fits and taken.count(share) < share[1]:
                yield from more(place, left - weight[place], [*taken, share])

    yield from more(0, highest, [])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picked:
    held: Places
    status: str
    work: float


def _pick(patterns: list[Pattern], held: Places, experts: int, effort: Effort) -> _Picked:
    """GPUs for patterns so that every expert has one number of replicas and as many of them."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    used = [model.new_int_var(0, len(held), "") for _ in patterns]
    of_share: dict[Share, list[Any]] = {}
    for pattern, times in zip(patterns, used, strict=True):
        for share in sorted(set(pattern)):
            of_share.setdefault(share, []).append(pattern.count(share) * times)
    picks: list[list[Any]] = [[] for _ in range(experts)]
    replicas = []
    for share, terms in of_share.items():
        pick = model.new_bool_var("")
        picks[share[0]].append(pick)
        replicas.append(share[1] * pick)
        model.add(sum(terms) == share[1] * pick)
    for pick_list in picks:
        model.add_exactly_one(pick_list)
    model.add(sum(used) == len(held))
    model.add(sum(replicas) == held.size)  # follows, but saves the solver most of its work
    solver, status = watched_solve(model, Watch(objective=0.0, bound=0.0), effort)
    if status in ("OPTIMAL", "FEASIBLE"):
        rows = [pattern for pattern, times in zip(patterns, used, strict=True) for _ in range(solver.value(times))]
        held = np.array([[expert for expert, _ in pattern] for pattern in rows], np.int64)
    return _Picked(held=held, status=status, work=float(solver.response_proto.deterministic_time))
