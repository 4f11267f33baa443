"""Cost and energy of a run, from its duration, its devices' price and its joules."""

from __future__ import annotations

import math

from simtool.plan import Plan
from simtool.report.contents import Contents

_J_PER_KWH = 3.6e6


def devices_by_type(plan: Plan) -> dict[str, int]:
    """Device -> how many the plan uses."""
    counts: dict[str, int] = {}
    for pool in plan.pools:
        stages = pool.stage_devices or (pool.device,) * pool.parallel.pp
        for device in stages:
            ranks = pool.replicas * pool.parallel.tp * pool.parallel.dp
            counts[device] = counts.get(device, 0) + ranks
    return counts


def dollars_per_hour(contents: Contents) -> float:
    """What the plan's devices cost an hour; NaN where a price is unknown."""
    prices = contents.price_per_hour
    return sum(count * prices.get(device, math.nan) for device, count in devices_by_type(contents.plan).items())


def cost_per_million_tokens(contents: Contents) -> float:
    """Dollars a million output tokens."""
    rate = contents.metrics.get("output_throughput", math.nan)
    return dollars_per_hour(contents) / 3600 / rate * 1e6 if rate > 0 else math.nan


def joules_per_token(contents: Contents) -> float:
    """Joules an output token, the devices' idle power included."""
    tokens = contents.metrics.get("output_throughput", 0.0) * contents.metrics.get("duration", 0.0)
    return contents.result.energy_j / tokens if tokens > 0 and contents.result.energy_j > 0 else math.nan


def kwh_per_million_tokens(contents: Contents) -> float:
    """Kilowatt-hours a million output tokens."""
    return joules_per_token(contents) * 1e6 / _J_PER_KWH


def mean_watts(contents: Contents) -> float:
    """Mean power of all the plan's devices over the run."""
    duration_s = contents.metrics.get("duration", 0.0)
    return contents.result.energy_j / duration_s if duration_s > 0 else math.nan
