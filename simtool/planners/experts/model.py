"""The placement on some GPUs as a CP-SAT model: replicas of each expert, and how many of them on each of these GPUs.

An expert all of whose replicas are on these GPUs is free: its number may change. Of others, those inside may move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.planners.experts.exchange import gpu_loads
from simtool.planners.schedule.progress import Effort, Watch, watched_solve

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
_FINE = 10**7  # ticks of the highest load
_ROUTES = 10**6  # parts that crossing load is counted in


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What decides among placements with a highest load up to `limit`: crossing load, and with it moved experts.

    local: [gpus, experts], the part of an expert's load that a GPU's node sends. there: [gpus, experts], whether the
    GPU holds the expert now.
    """

    limit: float
    local: Floats
    there: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """held: the placement found, or the given one where none was. work: deterministic seconds."""

    held: Places
    status: str
    work: float


@dataclass(slots=True, kw_only=True)
class _Draft:
    load: Floats
    held: Places
    chosen: list[int]
    model: Any
    ticks: float  # a unit of load
    weights: list[list[Any]] = field(default_factory=list)  # by chosen GPU
    taken: list[list[Any]] = field(default_factory=list)
    on: dict[tuple[int, int], list[tuple[int, Any]]] = field(default_factory=dict)  # (expert, gpu) → (replicas, held)
    numbers: list[Any] = field(default_factory=list)


def solve_gpus(
    load: Floats, held: Places, chosen: list[int], effort: Effort, rest: Rest | None = None, reach: int = 2
) -> Solved:
    """Place what the chosen GPUs hold anew: least highest load among them, or what `rest` asks for.

    held: [gpus, slots]. reach: how far an expert's number of replicas may go from what it is.
    """
    from ortools.sat.python import cp_model

    draft = _Draft(
        load=load, held=held, chosen=chosen, model=cp_model.CpModel(), ticks=_FINE / gpu_loads(load, held).max()
    )
    _experts(draft, reach, gpu_loads(load, held)[chosen].max())
    for taken in draft.taken:
        draft.model.add(sum(taken) == held.shape[1])
    if rest is None:
        _highest(draft)
    else:
        _decide(draft, rest)
    solver, status = watched_solve(draft.model, Watch(objective=math.inf, bound=-math.inf), effort)
    found = status in ("OPTIMAL", "FEASIBLE")
    work = float(solver.response_proto.deterministic_time)
    return Solved(held=_read(draft, solver) if found else held, status=status, work=work)


def _needed(load: Floats, highest: float) -> Places:
    """Fewest replicas of each expert under the highest load."""
    return np.maximum(1, np.ceil(load / highest * (1 - 1e-12))).astype(np.int64)


def _experts(draft: _Draft, reach: int, highest: float) -> None:
    """Numbers of replicas and where they are."""
    counts = np.bincount(draft.held.ravel(), minlength=len(draft.load))
    inside = np.bincount(draft.held[draft.chosen].ravel(), minlength=len(draft.load))
    draft.weights = [[] for _ in draft.chosen]
    draft.taken = [[] for _ in draft.chosen]
    free = [expert for expert in np.flatnonzero(inside).tolist() if inside[expert] == counts[expert]]
    need = _needed(draft.load, highest)
    spare = int(inside[free].sum() - need[free].sum())
    for expert in np.flatnonzero(inside).tolist():
        if expert not in free:
            _place(draft, expert, int(counts[expert]), int(inside[expert]), 1)
            continue
        low, high = int(need[expert]), int(need[expert]) + max(spare, 0)
        low, high = max(low, int(counts[expert]) - reach), min(high, int(counts[expert]) + reach)
        picks = []
        for number in range(low, high + 1):
            pick = draft.model.new_bool_var("") if high > low else 1
            picks.append(pick)
            draft.model.add_hint(pick, number == counts[expert]) if high > low else None
            _place(draft, expert, number, number, pick)
        if high > low:
            draft.model.add_exactly_one(picks)


def _place(draft: _Draft, expert: int, number: int, inside: int, pick: Any) -> None:
    """`inside` of `number` replicas on the chosen GPUs, where `pick` is 1."""
    model, counts = draft.model, np.bincount(draft.held.ravel(), minlength=len(draft.load))
    share = math.floor(draft.load[expert] * draft.ticks / number)
    here = []
    for place, gpu in enumerate(draft.chosen):
        x = model.new_int_var(0, min(inside, draft.held.shape[1]), "")
        now = int((draft.held[gpu] == expert).sum()) if number == counts[expert] else 0
        model.add_hint(x, now)
        draft.weights[place].append(share * x)
        draft.taken[place].append(x)
        draft.on.setdefault((expert, gpu), []).append((number, x))
        here.append(x)
    model.add(sum(here) == inside * pick)


def _highest(draft: _Draft) -> None:
    """Least highest load of the chosen GPUs."""
    now = gpu_loads(draft.load, draft.held)[draft.chosen].max()
    top = draft.model.new_int_var(0, math.ceil(now * draft.ticks), "highest")
    for weights in draft.weights:
        draft.model.add(sum(weights) <= top)
    draft.model.minimize(top)


def _decide(draft: _Draft, rest: Rest) -> None:
    """Crossing load first, then moved experts, under the limit on every GPU (floors: checked again by the caller)."""
    for weights in draft.weights:
        draft.model.add(sum(weights) <= math.floor(rest.limit * draft.ticks))
    part = _ROUTES / max(float(draft.load.sum()), 1e-300)
    near, moved = [], []
    for (expert, gpu), placed in draft.on.items():
        near += [round(part * rest.local[gpu, expert] / number) * x for number, x in placed]
        if not rest.there[gpu, expert]:
            comes = draft.model.new_bool_var("")
            most = draft.held.shape[1]
            draft.model.add(sum(x for _, x in placed) <= most * comes)
            moved.append(comes)
    draft.model.minimize(sum(moved) - (draft.held.size + 1) * sum(near))


def _read(draft: _Draft, solver: Any) -> Places:
    """The placement of the solver; what stays on a GPU keeps its slot."""
    held = draft.held.copy()
    for gpu in draft.chosen:
        wanted = [
            expert
            for (expert, place), placed in draft.on.items()
            if place == gpu
            for _ in range(sum(solver.value(x) for _, x in placed))
        ]
        held[gpu] = keep_slots(np.array(sorted(wanted), np.int64), draft.held[gpu])
    return held


def keep_slots(wanted: Places, now: Places) -> Places:
    """The experts `wanted` in an order that leaves those that `now` has where they are; both: [slots]."""
    left, placed = wanted.tolist(), np.full(len(now), -1, np.int64)
    for slot, expert in enumerate(now.tolist()):
        if expert in left:
            placed[slot] = expert
            left.remove(expert)
    placed[placed < 0] = left
    return placed
