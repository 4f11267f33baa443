"""SlotSplit: slots of one budget over layers, for the most hits; a multiple-choice knapsack with its proof."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.planners.certificate import Certificate, fixed_solver
from simtool.simulator.offload.placing import split_slots

F8 = NDArray[np.float64]
LIMIT = 2.0  # deterministic seconds
_SCOPE = "hits of the curves given, as many slots a layer as a curve has points for"
_TICKS = 10**9  # of the most hits, for CP-SAT's whole numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSplit:
    """slots: of each layer. certificate: of the hits (objective) that the curves promise."""

    slots: tuple[int, ...]
    certificate: Certificate


def split_by_curves(values: F8, slots: Sequence[int], total: int, limit: float = LIMIT) -> SlotSplit:
    """values: [layers, points], hits of a layer with slots[point] slots (ascending): split `total` for most hits.

    Greedy by the curves' concave hulls bounds every split, and is itself best where it ends on the curves, as it does
    where they are concave with a point for every slot. Else CP-SAT. Raises InputError where `total` is less than the
    first point of every layer.
    """
    began = time.monotonic()
    if len(values) * slots[0] > total:
        raise InputError(total, f"slots must be at least {len(values) * slots[0]}")
    places, bound = _greedy(values, np.asarray(slots), total)
    found, status = float(values[np.arange(len(values)), places].sum()), "OPTIMAL"
    if bound - found > 1e-9 * max(1.0, abs(bound)):
        places, proven, status = _solved(values, slots, total, places, limit)
        found = float(values[np.arange(len(values)), places].sum())
        bound = max(min(bound, proven), found)
    certificate = Certificate(
        status=status,
        objective=found,
        bound=bound,
        gap=max(0.0, bound - found) / max(abs(bound), 1e-300) if bound > found else 0.0,
        seconds=time.monotonic() - began,
        scope=_SCOPE,
        deterministic_limit=limit,
    )
    return SlotSplit(slots=tuple(int(slots[place]) for place in places), certificate=certificate)


def pinned_split(uses: F8, total: int) -> SlotSplit:
    """uses: [layers, experts]: the split of `total` that serves most uses when the most used experts are pinned.

    The `total` most used of all experts, whatever their layers: any set of so many has fewer uses, so greedy is best.
    """
    began = time.monotonic()
    slots = split_slots(uses, total)
    served = float(sum(np.sort(row)[::-1][:count].sum() for row, count in zip(uses, slots, strict=True)))
    certificate = Certificate(
        status="OPTIMAL",
        objective=served,
        bound=served,
        gap=0.0,
        seconds=time.monotonic() - began,
        scope="expected needs of pinned experts",
    )
    return SlotSplit(slots=tuple(slots.tolist()), certificate=certificate)


def even_split(layers: int, total: int, most: int) -> tuple[int, ...]:
    """`total` slots over layers that differ by one at most, none above `most`."""
    first, more = divmod(min(total, layers * most), layers)
    return tuple(first + (layer < more) for layer in range(layers))


def with_rest(slots: Sequence[int], total: int, most: int) -> tuple[int, ...]:
    """The slots with what is left of `total` given out in turn, where there are fewest."""
    held = np.array(slots)
    for _ in range(total - int(held.sum())):
        layer = int(held.argmin())
        if held[layer] >= most:
            break
        held[layer] += 1
    return tuple(held.tolist())


def _greedy(values: F8, slots: NDArray[np.int64], total: int) -> tuple[NDArray[np.int64], float]:
    """(point of each layer, hits that no split exceeds): hull segments, steepest first, while they fit."""
    segments = []
    for layer, row in enumerate(values):
        corners = _hull(slots, row)
        for low, high in pairwise(corners):
            gain = row[high] - row[low]
            if gain > 0:
                segments.append((-gain / (slots[high] - slots[low]), layer, low, high))
    places = np.zeros(len(values), np.int64)
    left, bound = total - len(values) * int(slots[0]), float(values[:, 0].sum())
    whole = True  # what follows the first segment that does not fit adds hits and no proof
    for slope, layer, low, high in sorted(segments):
        width = int(slots[high] - slots[low])
        if whole:
            bound += -slope * min(width, left)
        if width <= left and places[layer] == low:
            places[layer], left = high, left - width
        else:
            whole = False
    return places, bound


def _hull(slots: NDArray[np.int64], row: F8) -> list[int]:
    """Points of the least concave function above the curve."""
    kept: list[int] = []
    for point in range(len(row)):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (row[b] - row[a]) * (slots[point] - slots[a]) >= (row[point] - row[a]) * (slots[b] - slots[a]):
                break
            kept.pop()
        kept.append(point)
    return kept


def _solved(
    values: F8, slots: Sequence[int], total: int, places: NDArray[np.int64], limit: float
) -> tuple[NDArray[np.int64], float, str]:
    """(points, bound, status) of CP-SAT, from the greedy's on."""
    from ortools.sat.python import cp_model

    model, layers, points = cp_model.CpModel(), len(values), len(slots)
    scale = _TICKS / max(1.0, float(np.abs(values).max(axis=1).sum()))
    picks = [[model.new_bool_var("") for _ in range(points)] for _ in range(layers)]
    for layer, row in enumerate(picks):
        model.add_exactly_one(row)
        for point, pick in enumerate(row):
            model.add_hint(pick, bool(places[layer] == point))
    flat = [(layer, point) for layer in range(layers) for point in range(points)]
    model.add(sum(int(slots[point]) * picks[layer][point] for layer, point in flat) <= total)
    model.maximize(sum(round(values[layer, point] * scale) * picks[layer][point] for layer, point in flat))
    solver = fixed_solver(limit)
    status = str(solver.status_name(solver.solve(model)))
    bound = (solver.best_objective_bound + 0.5 * layers) / scale  # ticks are rounded
    if status not in ("OPTIMAL", "FEASIBLE"):
        return places, bound, status
    found = [next(point for point, pick in enumerate(row) if solver.value(pick)) for row in picks]
    return np.array(found, np.int64), bound, status
