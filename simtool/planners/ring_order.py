"""Ring order from measured pairwise bandwidths: a travelling salesman.

A ring goes at the pace of its slowest edge, so first the largest least bandwidth is found: bisection over the values
measured, with a circuit through edges that reach the value (CP-SAT). Of these rings one with the least summed seconds a
byte is chosen, which is the ring's latency where steps are not in step, and keeps long ways few.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simtool.errors import InfeasibleError, InputError
from simtool.planners.certificate import DETERMINISTIC_LIMIT, Certificate, fixed_solver

Array = NDArray[np.float64]
_SCALE = 1_000_000  # seconds a byte as whole numbers, of the slowest edge of the best ring found


@dataclass(frozen=True, slots=True, kw_only=True)
class RingOrder:
    """order: peers, each sends to the next, the last to the first. bottleneck_bytes_per_s: of its slowest edge.

    baseline_bytes_per_s: of the better of the given order and nearest neighbour. certificate: on the bottleneck;
    sum_certificate: on the seconds a byte summed over edges, among rings of that bottleneck.
    """

    order: tuple[int, ...]
    bottleneck_bytes_per_s: float
    baseline_bytes_per_s: float
    certificate: Certificate
    sum_certificate: Certificate


def plan_ring(bytes_per_s: ArrayLike, *, limit: float = DETERMINISTIC_LIMIT) -> RingOrder:
    """The best ring through all peers of a matrix [n, n] of bytes/s from row to column (0 or NaN: no way).

    Never worse than the given order or nearest neighbour. InfeasibleError: no ring exists. limit: solver units a call.
    """
    started, rates = time.monotonic(), _checked(bytes_per_s)
    orders = [tuple(range(len(rates))), *(nearest_neighbour(rates, first) for first in range(len(rates)))]
    best = max(orders, key=lambda order: (ring_bottleneck(rates, order), -ring_sum(rates, order)))
    baseline = ring_bottleneck(rates, best)
    ceiling, status = bottleneck_bound(rates), "OPTIMAL"
    levels = np.unique(rates[(rates > baseline) & (rates <= ceiling)])
    low, high, unproven = 0, len(levels), False
    while low < high:  # levels below `low` are reached, those from `high` on are not
        middle = (low + high) // 2
        found, answer = _circuit(rates, float(levels[middle]), limit, best, minimise=False)[:2]
        if found:
            best = found
            low = int(np.searchsorted(levels, ring_bottleneck(rates, best), side="right"))
        else:
            high = middle
            unproven |= answer != "INFEASIBLE"
    reached = ring_bottleneck(rates, best)
    if reached <= 0:
        raise InfeasibleError("ring", "no ring joins all peers", "measure more pairs, or leave a peer out")
    bound = ceiling if unproven else reached
    status = "OPTIMAL" if bound <= reached else "FEASIBLE"
    first = _certificate(status, reached, bound, started, "least bandwidth on a ring through all peers")
    best, second = _least_sum(rates, reached, limit, best)
    return RingOrder(
        order=best,
        bottleneck_bytes_per_s=reached,
        baseline_bytes_per_s=baseline,
        certificate=first,
        sum_certificate=second,
    )


def nearest_neighbour(rates: Array, first: int = 0) -> tuple[int, ...]:
    """From `first`, always on to the peer that is fastest to reach."""
    order, left = [first], set(range(len(rates))) - {first}
    while left:
        order.append(max(sorted(left), key=lambda peer: rates[order[-1], peer]))
        left.remove(order[-1])
    return tuple(order)


def ring_bottleneck(rates: Array, order: Sequence[int]) -> float:
    """Bytes/s of the slowest edge of a ring."""
    return float(rates[list(order), np.roll(order, -1)].min())


def ring_sum(rates: Array, order: Sequence[int]) -> float:
    """Seconds a byte, summed over the edges of a ring; infinite where it has no way."""
    edges = rates[list(order), np.roll(order, -1)]
    return float(np.sum(1.0 / edges)) if edges.min() > 0 else float("inf")


def bottleneck_bound(rates: Array) -> float:
    """No ring is faster: every peer is entered and left by an edge of its own."""
    return float(min(rates.max(axis=0).min(), rates.max(axis=1).min()))


def _least_sum(
    rates: Array, reached: float, limit: float, best: tuple[int, ...]
) -> tuple[tuple[int, ...], Certificate]:
    started = time.monotonic()
    found, status, bound = _circuit(rates, reached, limit, best, minimise=True)
    if found and ring_sum(rates, found) < ring_sum(rates, best):
        best = found
    objective = ring_sum(rates, best)
    scope = "seconds a byte summed over a ring, among rings of the largest least bandwidth"
    return best, _certificate(status, objective, min(bound / reached / _SCALE, objective), started, scope)


def _circuit(
    rates: Array, level: float, limit: float, hint: Sequence[int], *, minimise: bool
) -> tuple[tuple[int, ...], str, float]:
    """(ring over edges of at least `level`, or (); status; bound of the scaled sum)."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    after = dict(zip(hint, np.roll(hint, -1).tolist(), strict=True))
    edges: dict[tuple[int, int], Any] = {}
    for i, j in np.argwhere(rates >= level).tolist():
        edges[i, j] = model.new_bool_var(f"{i}>{j}")
        model.add_hint(edges[i, j], after[i] == j)
    if not edges:
        return (), "INFEASIBLE", 0.0
    model.add_circuit([(i, j, chosen) for (i, j), chosen in edges.items()])
    if minimise:
        model.minimize(sum(int(_SCALE * level / rates[edge]) * chosen for edge, chosen in edges.items()))
    solver = fixed_solver(limit)
    status = solver.solve(model)
    name = str(solver.status_name(status))
    bound = float(solver.best_objective_bound) if minimise else 0.0
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return (), name, bound
    following = {i: j for (i, j), chosen in edges.items() if solver.value(chosen)}
    order = [0]
    while following[order[-1]] != 0:
        order.append(following[order[-1]])
    return tuple(order), name, bound


def _certificate(status: str, objective: float, bound: float, started: float, scope: str) -> Certificate:
    gap = abs(bound - objective) / objective
    return Certificate(
        status=status, objective=objective, bound=bound, gap=gap, seconds=time.monotonic() - started, scope=scope
    )


def _checked(bytes_per_s: ArrayLike) -> Array:
    rates = np.array(bytes_per_s, np.float64)
    if rates.ndim != 2 or rates.shape[0] != rates.shape[1] or len(rates) < 2:
        raise InputError(rates.shape, "is no matrix of bandwidths", "[n, n] bytes/s, n >= 2")
    rates = np.nan_to_num(rates, nan=0.0, posinf=np.inf)
    if (rates < 0).any() or np.isinf(rates).any():
        raise InputError("bandwidths", "must be finite and not negative", "bytes/s; 0 or NaN where there is no way")
    np.fill_diagonal(rates, 0.0)
    return rates
