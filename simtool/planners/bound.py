"""Bounds: the least time a fleet of engines needs for a workload, proven by prices (a linear-programming dual).

Every step of every replica contains some decodes, prefill tokens and KV reads. Put a price on each of these, on a
second of a replica and on a second of a request in flight. If no possible step contains more value than its seconds
cost, the whole workload's value is a lower bound on the run's duration, whatever the scheduler and router do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simtool.planners.demand import Demand
from simtool.planners.floor import StepFloor

Array = NDArray[np.float64]
_ROUNDS = 12  # of column generation; stopping early only loosens the bound
_CLOSE = 1e-4  # violation at which a price vector is scaled into feasibility instead of refined


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Seconds of run that one decode, prefill token, KV read and (query, key) pair are worth; feasible for all steps.

    replica [engines][stages]: price of a second of one replica's stage; flight: of a second of one request in flight.
    """

    decode: float
    prefill: float
    kv_read: float
    pair: float
    replica: tuple[tuple[float, ...], ...]
    flight: float

    def value(self, demand: Demand) -> float:
        """Seconds that the demand is worth: a lower bound on the duration of its run."""
        tokens = self.decode * demand.decode_tokens + self.prefill * demand.prefill_tokens
        return tokens + self.kv_read * demand.kv_reads + self.pair * demand.pairs


def work_bound(demand: Demand, fleet: Sequence[tuple[StepFloor, int]]) -> tuple[float, Prices]:
    """Least seconds that `fleet` ((floor, replicas) each) needs for the work, and the prices that prove it."""
    widths = [len(floor.pair_s) for floor, _ in fleet]
    in_flight = min(demand.concurrency, sum(floor.in_flight * replicas for floor, replicas in fleet))
    columns = [_first_columns(index, floor, widths) for index, (floor, _) in enumerate(fleet)]
    solution = np.zeros(5 + sum(widths))
    for _ in range(_ROUNDS):
        solution = _solve(demand, fleet, widths, in_flight, np.concatenate(columns))
        prices = _prices(solution, widths)
        worst = 1.0
        for index, (floor, _) in enumerate(fleet):
            ratio, violated = _violations(prices, index, floor, widths)
            worst = min(worst, ratio)
            columns.append(violated)
        if worst >= 1.0 - _CLOSE:
            break
    scaled = _scaled(_prices(solution, widths), fleet, widths)
    return max(0.0, scaled.value(demand)), scaled


def covers(prices: Prices, fleet: Sequence[tuple[StepFloor, int]]) -> float:
    """Least ratio of what a step costs to what it is worth, over all steps; prices are valid when >= 1."""
    widths = [len(floor.pair_s) for floor, _ in fleet]
    return min(_violations(prices, index, floor, widths)[0] for index, (floor, _) in enumerate(fleet))


def _prices(solution: Array, widths: Sequence[int]) -> Prices:
    """Variables: decode, prefill, kv_read, pair, flight, then one a critical stage of each engine."""
    ends = np.cumsum([5, *widths])
    replica = tuple(tuple(float(u) for u in solution[start:end]) for start, end in pairwise(ends))
    decode, prefill, kv_read, pair, flight = (float(value) for value in solution[:5])
    return Prices(decode=decode, prefill=prefill, kv_read=kv_read, pair=pair, flight=flight, replica=replica)


def _scaled(prices: Prices, fleet: Sequence[tuple[StepFloor, int]], widths: Sequence[int]) -> Prices:
    """Prices cut back so that no step at all is worth more than it costs."""
    shrink = 1.0
    pair = prices.pair
    for index, (floor, _) in enumerate(fleet):
        shrink = min(shrink, _violations(prices, index, floor, widths)[0])
        u = np.array(prices.replica[index])
        pair = min(pair, float(u @ floor.pair_s) + prices.flight * floor.latency_pair_s)
    shrink = max(0.0, shrink) * (1.0 - 1e-9)
    return Prices(
        decode=prices.decode * shrink,
        prefill=prices.prefill * shrink,
        kv_read=prices.kv_read * shrink,
        pair=max(0.0, pair) * (1.0 - 1e-9),
        replica=prices.replica,
        flight=prices.flight,
    )


def _solve(
    demand: Demand, fleet: Sequence[tuple[StepFloor, int]], widths: Sequence[int], in_flight: float, rows: Array
) -> Array:
    """The best prices against the steps in `rows`."""
    from scipy.optimize import linprog

    pair_rows = np.zeros((len(fleet), 5 + sum(widths)))
    budget = np.zeros(5 + sum(widths))
    budget[4] = in_flight if np.isfinite(in_flight) else 0.0
    start = 5
    for index, (floor, replicas) in enumerate(fleet):
        stages = slice(start, start + widths[index])
        pair_rows[index, 3], pair_rows[index, 4] = 1.0, -floor.latency_pair_s
        pair_rows[index, stages] = -floor.pair_s
        budget[stages] = replicas
        start += widths[index]
    value = np.zeros(5 + sum(widths))
    value[:4] = demand.decode_tokens, demand.prefill_tokens, demand.kv_reads, demand.pairs
    # columns are scaled by what the workload holds of each, so that the solver sees numbers near one
    scale = np.ones_like(value)
    scale[:4] = 1.0 / np.maximum(value[:4], 1.0)
    scale[4] = 1.0 / in_flight if np.isfinite(in_flight) else 1.0
    matrix = np.vstack([rows, pair_rows, budget]) * scale
    limits = np.zeros(len(matrix))
    limits[-1] = 1.0
    size = np.abs(matrix).max(axis=1)
    keep = size > 0
    matrix, limits = matrix[keep] / size[keep, None], limits[keep] / size[keep]
    upper = [None] * 4 + [None if np.isfinite(in_flight) else 0.0] + [None] * sum(widths)
    found = linprog(-value * scale, A_ub=matrix, b_ub=limits, bounds=[(0.0, high) for high in upper], method="highs")
    if found.x is None:  # no prices found: the trivial bound is still valid
        return np.zeros_like(value)
    return np.maximum(np.asarray(found.x, np.float64), 0.0) * scale


def _costs(prices: Prices, index: int, floor: StepFloor) -> tuple[Array, Array, Array]:
    """Price of every bucket's floor: [I, J] without attention, and [I, K] attention without and with a prefill."""
    u = np.array(prices.replica[index])
    seats = floor.d_low[:, None] + (floor.p_low[None, :] > 0)
    base = np.tensordot(u, floor.stage_s, axes=1) + prices.flight * seats * floor.latency_s
    busy = np.tensordot(u, floor.attention_s, axes=1)
    alone = busy + prices.flight * floor.d_low[:, None] * floor.latency_attention_s
    beside = busy + prices.flight * (floor.d_low[:, None] + 1.0) * floor.latency_attention_s
    return base, alone, beside


def _violations(prices: Prices, index: int, floor: StepFloor, widths: Sequence[int]) -> tuple[float, Array]:
    """The least ratio cost / worth over an engine's steps, and the rows of its worst steps."""
    base, alone, beside = _costs(prices, index, floor)
    reads = prices.kv_read * floor.d_high[:, None] * floor.context
    prefills = (floor.p_low > 0)[None, :]
    knot = np.where(prefills, (beside - reads).argmin(axis=1)[:, None], (alone - reads).argmin(axis=1)[:, None])
    spare = np.where(prefills, (beside - reads).min(axis=1)[:, None], (alone - reads).min(axis=1)[:, None])
    slack = base + spare - (prices.decode * floor.d_high)[:, None] - prices.prefill * floor.p_high
    cost = base + np.where(prefills, beside.min(axis=1)[:, None], alone.min(axis=1)[:, None])
    # cost / (cost - slack) grows with cost where slack < 0, so the least cost over contexts gives a valid ratio
    short = slack < 0
    ratio = np.ones_like(slack)
    ratio[short] = cost[short] / (cost[short] - slack[short])
    ratio[~((floor.p_high > 0) | ~prefills)] = 1.0  # no room for this prefill beside these decodes
    ratio[0, 0] = 1.0  # an empty step is no step
    by_row = [(int(i), int(ratio[i].argmin())) for i in np.argsort(ratio.min(axis=1))[:5]]
    rows = [_row(index, floor, widths, i, j, int(knot[i, j])) for i, j in by_row]
    return float(ratio.min()), np.array(rows)


def _row(index: int, floor: StepFloor, widths: Sequence[int], i: int, j: int, k: int) -> Array:
    """The constraint "this step is worth no more than it costs" as coefficients <= 0."""
    row = np.zeros(5 + sum(widths))
    start = 5 + sum(widths[:index])
    seats = floor.d_low[i] + (floor.p_low[j] > 0)
    row[0], row[1] = floor.d_high[i], floor.p_high[i, j]
    row[2] = floor.d_high[i] * floor.context[i, k]
    row[4] = -seats * (floor.latency_s[i, j] + floor.latency_attention_s[i, k])
    row[start : start + widths[index]] = -(floor.stage_s[:, i, j] + floor.attention_s[:, i, k])
    return row


def _first_columns(index: int, floor: StepFloor, widths: Sequence[int]) -> Array:
    """A few telling steps to start from: most decodes, one decode, a full prefill, both."""
    last, top = len(floor.d_low) - 1, int(floor.p_high[0].argmax())
    half = last // 2
    knots = (0, floor.context.shape[1] - 1)
    places = [(last, 0), (half, 0), (min(1, last), 0), (0, top), (half, max(1, top // 2))]
    rows = [
        _row(index, floor, widths, i, j, k)
        for i, j in places
        if (i, j) != (0, 0) and j < len(floor.p_low)
        for k in knots
    ]
    return np.array(rows)
