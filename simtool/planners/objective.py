"""Objectives: the number a search improves, from a plan, its price and its metrics. One definition each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simtool.errors import InputError
from simtool.planners.question import Objective

_MAXIMISED = frozenset({"throughput-per-gpu", "goodput-per-gpu", "throughput-per-dollar"})
OBJECTIVES: tuple[Objective, ...] = (
    "throughput-per-gpu",
    "goodput-per-gpu",
    "throughput-per-dollar",
    "latency",
    "ttft",
    "tpot",
    "gpus",
    "cost-per-token",
    "energy-per-token",
)


def maximised(objective: Objective) -> bool:
    """Whether more is better. Raises InputError for an unknown objective."""
    if objective not in OBJECTIVES:
        raise InputError(objective, "unknown objective", f"one of {', '.join(OBJECTIVES)}")
    return objective in _MAXIMISED


def better(objective: Objective, a: float, b: float) -> bool:
    """Whether value `a` beats value `b`."""
    return a > b if maximised(objective) else a < b


def relative_gap(objective: Objective, value: float, bound: float) -> float:
    """How far `bound` is ahead of `value`, relative to `value` (0: it is not ahead)."""
    ahead = bound - value if maximised(objective) else value - bound
    if ahead <= 0:
        return 0.0
    return ahead / abs(value) if value else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What every objective is a function of, measured or bounded.

    duration_s: first send to last finish. requests, output_tokens: finished in it. good_requests: those that met the
    SLO. mean latencies in seconds, energy in joules, devices and their price an hour.
    """

    duration_s: float
    requests: float
    output_tokens: float
    good_requests: float
    mean_e2e_s: float
    mean_ttft_s: float
    mean_tpot_s: float
    energy_j: float
    devices: int
    usd_per_hour: float


def outcome_of(
    metrics: Mapping[str, float], attainment: float, energy_j: float, devices: int, usd_per_hour: float
) -> Outcome:
    """The outcome of a run, from vLLM's keys (milliseconds) and the share of requests that met the SLO."""
    duration_s = float(metrics["duration"])
    requests = float(metrics["completed"])
    return Outcome(
        duration_s=duration_s,
        requests=requests,
        output_tokens=float(metrics["output_throughput"]) * duration_s,
        good_requests=requests * attainment,
        mean_e2e_s=float(metrics["mean_e2el_ms"]) / 1e3,
        mean_ttft_s=float(metrics["mean_ttft_ms"]) / 1e3,
        mean_tpot_s=float(metrics["mean_tpot_ms"]) / 1e3,
        energy_j=energy_j,
        devices=devices,
        usd_per_hour=usd_per_hour,
    )


def objective_value(objective: Objective, outcome: Outcome) -> float:
    """The objective in its own unit (see question.Objective). A run without a duration is worth nothing."""
    usd = outcome.usd_per_hour * outcome.duration_s / 3600
    match objective:
        case "throughput-per-gpu":
            return _rate(outcome.output_tokens, outcome.duration_s) / outcome.devices
        case "goodput-per-gpu":
            return _rate(outcome.good_requests, outcome.duration_s) / outcome.devices
        case "throughput-per-dollar":
            return _rate(outcome.output_tokens, usd)
        case "latency":
            return outcome.mean_e2e_s
        case "ttft":
            return outcome.mean_ttft_s
        case "tpot":
            return outcome.mean_tpot_s
        case "gpus":
            return float(outcome.devices)
        case "cost-per-token":
            return 1e6 * usd / outcome.output_tokens if outcome.output_tokens else float("inf")
        case "energy-per-token":
            return outcome.energy_j / outcome.output_tokens if outcome.output_tokens else float("inf")


def _rate(amount: float, over: float) -> float:
    return amount / over if over > 0 else float("inf")
