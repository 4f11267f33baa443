"""Relax: why a question has no answer, by how much, and the smallest change that would give one."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from simtool.errors import InfeasibleError
from simtool.metrics import Result, Slo, request_latencies
from simtool.planners.space import Refusals, plan_label

if TYPE_CHECKING:
    from simtool.planners.backend import Backend
    from simtool.planners.question import Question
    from simtool.planners.search import Search

_MEMORY_RULES = ("memory", "kv-capacity")


def explain_infeasible(search: Search, refusals: Refusals) -> InfeasibleError:
    """The error of a question without an answer: a rule where no plan is legal, else the SLO that no plan met."""
    if not search.proposals:
        return _no_legal_plan(refusals) if refusals.counts else _empty_space(search.question, search.backend)
    return _slo_missed(search)


def _no_legal_plan(refusals: Refusals) -> InfeasibleError:
    """The rule that stands last in the way: memory, if any plan came so far, else the one that refuses most."""
    memory = [rule for rule in refusals.counts if rule in _MEMORY_RULES]
    judged = [name for name in refusals.counts if name != "whole-nodes"] or list(refusals.counts)  # never the cause
    rule = memory[0] if memory else max(judged, key=lambda name: refusals.counts[name])
    others = ", ".join(f"{name} {count}" for name, count in refusals.counts.items() if name != rule)
    detail = f"no legal plan: {refusals.counts[rule]} refused, for example {refusals.examples[rule]}"
    return InfeasibleError(rule, detail + (f" (other rules: {others})" if others else ""), refusals.relaxation)


def _empty_space(question: Question, backend: Backend) -> InfeasibleError:
    """The choices leave no plan to judge: the degrees take too many devices, or do not go with the counts asked for."""
    space, have = question.space, max(group.count for group in backend.groups)
    degrees = {name: min(values) for name, values in (("tp", space.tp), ("pp", space.pp), ("dp", space.dp)) if values}
    needed = prod(degrees.values()) * min(space.replicas, default=1)
    if needed > have:
        asked = " x ".join(f"{name} {value}" for name, value in degrees.items())
        asked += f" x {min(space.replicas)} replicas" if space.replicas else ""
        return InfeasibleError("devices", f"{asked} takes {needed} devices, the cluster has {have} of a kind")
    return InfeasibleError("space", "no plan fits the choices given", "widen the space: fewer fixed degrees")


def nearest_limits(result: Result, slo: Slo) -> tuple[float, dict[str, float]]:
    """What a run would need of its SLO: (factor, limits in seconds by name).

    factor: by how much all limits must grow together until the asked share of requests meets them (<= 1: met). The
    limits are the least that this share of requests keeps, all at once.
    """
    seen = request_latencies(result)
    columns = {"ttft": (seen.ttft_s, slo.ttft_s), "tpot": (np.nan_to_num(seen.tpot_s), slo.tpot_s)}
    columns["e2el"] = (seen.e2e_s, slo.e2e_s)
    limited = {name: (np.nan_to_num(c, nan=np.inf), limit) for name, (c, limit) in columns.items() if limit > 0}
    ratios = np.max([column / limit for column, limit in limited.values()], axis=0)
    factor = float(np.sort(ratios)[max(int(np.ceil(slo.attainment * len(ratios))) - 1, 0)])
    kept = ratios <= factor
    return factor, {name: float(column[kept].max()) for name, (column, _) in limited.items()}


def overloaded(question: Question) -> InfeasibleError:
    """No plan keeps up with the given load."""
    work = question.workload
    rate = work.num_requests / max(float(work.arrival_s.max() - work.arrival_s.min()), 1e-9)
    return InfeasibleError(
        "load",
        f"no plan on {question.devices} keeps up with {rate:.3g} requests/s",
        "give more devices or a lower --request-rate, or ask for throughput-per-dollar, which does not need to keep up",
    )


def _slo_missed(search: Search) -> InfeasibleError:
    """The plan that comes nearest to the SLO, what it attains, and the limits it would meet."""
    from simtool.planners.evaluate import limited, simulate_plan

    question = search.question
    slo = question.slo
    if not limited(slo):
        return overloaded(question)
    order = sorted(range(len(search.proposals)), key=search.floor_factor)
    nearest, least, seconds = order[0], float("inf"), dict[str, float]()
    for index in order[:_TRIES]:
        if search.floor_factor(index) >= least:
            break  # no run of this or any later plan comes nearer
        proposal = search.proposals[index]
        run = simulate_plan(search.backend, proposal.plan, [proposal.spec], question.workload, slo)
        factor, needed = nearest_limits(run.result, slo)
        if factor < least:
            nearest, least, seconds = index, factor, needed
    limits = {"ttft": slo.ttft_s, "tpot": slo.tpot_s, "e2el": slo.e2e_s}
    missed = {name: value for name, value in seconds.items() if value > limits[name]} or seconds
    label = plan_label(search.proposals[nearest].plan)
    binding = max(missed, key=lambda name: missed[name] / limits[name])
    detail = "; ".join(f"{name} {limits[name] * 1e3:g} ms, best {missed[name] * 1e3:.4g} ms" for name in missed)
    relaxed = ",".join(f"{name}:{np.ceil(value * 1e4) / 10:g}" for name, value in missed.items())
    return InfeasibleError(
        f"slo {binding}",
        f"no plan gives {slo.attainment:.1%} of requests {detail} ({label})",
        f"--slo {relaxed} is met by {label}",
    )


_TRIES = 400  # plans simulated for the explanation; plans whose floor is too far off are never among them
