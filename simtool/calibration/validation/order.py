"""Order: whether the prediction ranks plans as the measurement does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from scipy.stats import kendalltau

from simtool.errors import InputError
from simtool.validation import PlanOrder, Validation

_LESS_IS_BETTER = ("_ms", "duration", "energy_j_per_output_token", "failed", "preemptions")


def plan_order(names: Sequence[str], found: Sequence[Validation], metric: str, noise: float) -> PlanOrder:
    """The order of plans by a metric. Raises InputError for fewer than two plans or a metric that a run lacks.

    noise: relative; a plan's own repeated measurement counts where it is larger.
    """
    if len(found) < 2:
        raise InputError("--plans", f"needs two plans or more, {len(found)} given")
    rows = []
    for name, one in zip(names, found, strict=True):
        row = next((row for row in one.metrics if row.key == metric), None)
        if row is None:
            known = ", ".join(row.key for row in one.metrics[:6])
            raise InputError(metric, f"is not known of both sides of {name}", f"metrics are {known}, …")
        rows.append(row)
    noise = max([noise, *(row.noise for row in rows if not math.isnan(row.noise))])
    return order_of(names, [row.predicted for row in rows], [row.measured for row in rows], metric, noise)


def order_of(
    names: Sequence[str], predicted: Sequence[float], measured: Sequence[float], metric: str, noise: float
) -> PlanOrder:
    """The same from numbers."""
    greater = not metric.endswith(_LESS_IS_BETTER)
    choose = max if greater else min
    best, favoured = choose(measured), choose(predicted)
    # of plans that are predicted alike any may be chosen: the worst of them counts
    chosen = (min if greater else max)(m for p, m in zip(predicted, measured, strict=True) if p == favoured)
    clear = [(i, j) for i, j in combinations(range(len(names)), 2) if _apart(measured[i], measured[j]) > noise]
    signs = [_sign(predicted[i] - predicted[j]) * _sign(measured[i] - measured[j]) for i, j in clear]
    return PlanOrder(
        names=tuple(names),
        metric=metric,
        greater_is_better=greater,
        predicted=tuple(predicted),
        measured=tuple(measured),
        noise=noise,
        top1=_apart(chosen, best) <= noise,
        tau=_tau(predicted, measured),
        clear_tau=sum(signs) / len(signs) if signs else math.nan,
        clear_pairs=len(clear),
    )


def _tau(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Kendall's tau-b; NaN where all plans are alike on one side, which have no order."""
    if len(set(predicted)) < 2 or len(set(measured)) < 2:
        return math.nan
    return float(kendalltau(predicted, measured).statistic)


def _apart(one: float, two: float) -> float:
    """Relative difference of two measurements."""
    return abs(one - two) / max(abs(one), abs(two)) if one or two else 0.0


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
