"""The simulated plans in order, as rows of a table of at most 8 columns (page and terminal)."""

from __future__ import annotations

import math

from simtool.planners.objective import maximised
from simtool.planners.question import Answer, Candidate
from simtool.report.wording import OBJECTIVES, number, plan_short

_SHORT_UNIT = {"throughput-per-dollar": "tok/$", "goodput-per-gpu": "good req/s/GPU", "cost-per-token": "$/M tok",
               "energy-per-token": "J/tok"}  # fmt: skip
_SHOWN_ANYWAY = ("throughput-per-gpu", "ttft", "tpot", "gpus")  # have a column of their own


def plan_rows(answer: Answer, limit: int) -> tuple[list[str], list[list[str]], int]:
    """(heads, rows, place of the best plan) of the best `limit` simulated plans, best first."""
    objective = answer.question.objective
    extra = objective not in _SHOWN_ANYWAY
    heads = ["plan", "GPUs", "batched tokens", "tok/s/GPU", "mean TTFT ms", "mean TPOT ms", "SLO"]
    if extra:
        heads.insert(3, _SHORT_UNIT.get(objective, OBJECTIVES[objective][1]))
    rows = []
    for candidate in ranked(answer)[:limit]:
        metrics = candidate.metrics or {}
        budgets = sorted({pool.scheduler.max_num_batched_tokens for pool in candidate.plan.pools})
        row = [plan_short(candidate.plan), str(candidate.plan.devices), ", ".join(f"{b:,}" for b in budgets)]
        if extra:
            row.append(number(math.nan if candidate.objective is None else candidate.objective, 4))
        row.append(number(metrics.get("output_throughput", math.nan) / candidate.plan.devices, 4))
        row += [number(metrics.get(f"mean_{name}_ms", math.nan), 4) for name in ("ttft", "tpot")]
        rows.append([*row, _verdict(candidate)])
    if not _limited(answer):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    return heads, rows, 0


def ranked(answer: Answer) -> list[Candidate]:
    """Simulated plans: the best, then by the objective; last those that miss the SLO, the nearest to it first."""
    greater = maximised(answer.question.objective)

    def order(candidate: Candidate) -> tuple[bool, bool, float, float]:
        value = math.inf if candidate.objective is None else candidate.objective
        missed = candidate.meets_slo is False
        near = _attained(candidate) if missed else 0.0
        return (candidate.status != "best", missed, -near, -value if greater else value)

    return sorted((c for c in answer.candidates if c.metrics is not None and c.status != "pruned"), key=order)


def _attained(candidate: Candidate) -> float:
    """Share of requests within every limit (0 where it is not known)."""
    share = float((candidate.metrics or {}).get("slo_attainment", 0.0))
    return share if math.isfinite(share) else 0.0


def _verdict(candidate: Candidate) -> str:
    """Whether the plan meets the SLO; where it does not, the share of requests that do, rounded down."""
    if candidate.meets_slo is False:
        return f"{math.floor(1e3 * _attained(candidate)) / 10:g}%: missed"
    return "met" if candidate.meets_slo else ""


def _limited(answer: Answer) -> bool:
    """Whether the question sets any limit."""
    slo = answer.question.slo
    return max(slo.ttft_s, slo.tpot_s, slo.e2e_s) > 0
