"""Value rates: how fast one replica can produce what a workload wants, under one fixed price list.

With prices fixed, a workload is worth V and a replica of kind c produces at most r_c of value a second, whatever it
runs. Then x_c replicas of each kind need at least V / sum(x_c r_c) seconds: a bound that is linear in x, valid for
unlike engines that share one workload in any way. Several price lists give several bounds; all hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simtool.planners.bound import Prices, covers, work_bound
from simtool.planners.demand import Demand
from simtool.planners.floor import StepFloor

_STEPS = 30  # of bisection on a rate; stopping early only loosens the bound


def price_list(demand: Demand, floor: StepFloor) -> Prices:
    """The prices that bound one replica of this engine best, concurrency left aside."""
    return work_bound(replace(demand, concurrency=float("inf")), [(floor, 1)])[1]


def value_rates(demand: Demand, prices: Prices, floors: Sequence[StepFloor]) -> list[float]:
    """Shares of the whole demand a second that each engine produces at most."""
    worth = prices.value(demand)
    if worth <= 0:
        return [float("inf")] * len(floors)
    return [1.0 / (_least_cost(prices, floor) * worth) for floor in floors]


def _least_cost(prices: Prices, floor: StepFloor) -> float:
    """Least price u of a replica-second at which no step is worth more than it costs (the best of its stages)."""
    return min(_stage_cost(prices, floor, stage) for stage in range(len(floor.pair_s)))


def _stage_cost(prices: Prices, floor: StepFloor, stage: int) -> float:
    def holds(cost: float) -> bool:
        row = tuple(cost if index == stage else 0.0 for index in range(len(floor.pair_s)))
        if prices.pair > cost * floor.pair_s[stage] * (1 + 1e-12):
            return False
        return covers(replace(prices, replica=(row,), flight=0.0), [(floor, 1)]) >= 1.0

    low, high = 0.0, 1.0
    while not holds(high):
        low, high = high, 2.0 * high
        if high > 1e12:
            return high
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
