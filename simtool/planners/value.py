"""Value: what one set of prices says about engines it was not made for.

Prices that bound one fleet bound every other too, once each engine's replica-second is priced so that none of its steps
is worth more than it costs. With those prices u_c, a workload of value V and N requests in flight at most, x_c replicas
of each kind need at least V / (sum of x_c u_c + N flight) seconds: linear in x, whatever the scheduler and router do,
and without solving anything. Several lists of prices give several bounds; all hold.
"""

from __future__ import annotations

import numpy as np

from simtool.planners.bound import Prices
from simtool.planners.demand import Demand
from simtool.planners.floor import StepFloor


def least_cost(prices: Prices, floor: StepFloor) -> float:
    """Least price of a replica-second at which no step is worth more than it costs (the best of the critical stages).

    Worth and cost are linear in the context between two knots, so the knots decide.
    """
    prefill = (floor.p_low > 0)[None, :]
    fits = (floor.p_high > 0) | ~prefill
    fits[0, 0] = False  # an empty step is no step
    seats = floor.d_low[:, None] + prefill
    base = (
        prices.decode * floor.d_high[:, None] + prices.prefill * floor.p_high - prices.flight * seats * floor.latency_s
    )
    needed = np.zeros(len(floor.pair_s))
    for knot in range(floor.context.shape[1]):
        reads = prices.kv_read * floor.d_high * floor.context[:, knot]
        worth = base + reads[:, None] - prices.flight * seats * floor.latency_attention_s[:, knot][:, None]
        worth = np.where(fits, np.maximum(worth, 0.0), 0.0)
        for stage, (fixed_s, attention_s) in enumerate(zip(floor.stage_s, floor.attention_s, strict=True)):
            needed[stage] = max(needed[stage], _ratio(worth, fixed_s + attention_s[:, knot][:, None]))
    pair = prices.pair - prices.flight * floor.latency_pair_s
    for stage, pair_s in enumerate(floor.pair_s):
        needed[stage] = max(needed[stage], _ratio(np.array([max(pair, 0.0)]), np.array([pair_s])))
    return float(needed.min()) * (1.0 + 1e-9)


def _ratio(
    worth: np.ndarray[tuple[int, ...], np.dtype[np.float64]], cost_s: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> float:
    """Largest worth a second."""
    worth, cost_s = worth[worth > 0], cost_s[worth > 0]
    if not len(worth):
        return 0.0
    return float((worth / cost_s).max()) if cost_s.min() > 0 else float("inf")


def least_seconds(demand: Demand, prices: Prices, fleet: list[tuple[float, float, int]]) -> float:
    """Lower bound on the duration: fleet holds (least cost, requests in flight, replicas) of each kind."""
    in_flight = min(demand.concurrency, sum(seats * replicas for _, seats, replicas in fleet))
    spent = sum(cost * replicas for cost, _, replicas in fleet)
    if prices.flight > 0:
        spent += prices.flight * in_flight
    return prices.value(demand) / spent if spent > 0 else 0.0
