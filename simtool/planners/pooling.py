"""Pooling: several models share one pool of devices; which replicas of which model, under memory, rates and SLOs.

Each model's options are columns: a compiled replica with the highest request rate at which it meets its SLO (a
bisection on simulated runs). CP-SAT picks counts so that every model's rate is served, at the least devices or dollars.
A chosen mix is verified by the checker and simulated model by model at its full rate; a model that misses its SLO
together has its capacity corrected downwards (a cut), and the solver is asked again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from simtool.errors import InfeasibleError, InputError
from simtool.plan import Plan, Pool
from simtool.planners.backend import Backend
from simtool.planners.capacity import Capacity, capacity
from simtool.planners.certificate import Certificate, fixed_solver
from simtool.planners.check import check_shared
from simtool.planners.evaluate import Run, limited, meets, simulate_plan
from simtool.planners.question import Question
from simtool.planners.space import Proposal, enumerate_plans, plan_label

_ROUNDS = 20  # corrections before the best mix so far is given up
_CENTS = 10_000  # weights as integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One replica of a model: its plan, the devices it takes of each group, and the rate it serves within its SLO."""

    proposal: Proposal
    takes: tuple[int, ...]
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A model's part of the answer: its plan (pools with replica counts) and what its simulated run gave."""

    question: Question
    plan: Plan
    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPlan:
    """All tenants, and the proof that no cheaper mix serves every rate under the capacities found."""

    tenants: tuple[Tenant, ...]
    devices: int
    usd_per_hour: float
    certificate: Certificate
    corrections: int


def plan_shared(
    questions: Sequence[Question],
    *,
    backends: Sequence[Backend] | None = None,
    minimise: Literal["gpus", "dollars"] = "gpus",
) -> SharedPlan:
    """Replicas for several models on one cluster. Every question names the same devices, has arrivals and an SLO.

    Raises InputError for unlike clusters or missing SLOs, InfeasibleError where a model cannot be served or the cluster
    is too small for all (with the devices that would be enough).
    """
    from simtool.planners.real import open_backend

    started = time.monotonic()
    _check(questions)
    tools = list(backends) if backends is not None else [open_backend(question) for question in questions]
    options = [_options(question, tool) for question, tool in zip(questions, tools, strict=True)]
    demands = [_rate(question) for question in questions]
    cuts: list[tuple[int, tuple[int, ...]]] = []
    for corrections in range(_ROUNDS):
        counts, bound, optimal = _choose(options, demands, tools[0], cuts, minimise)
        tenants = [
            _tenant(question, tool, option, n)
            for question, tool, option, n in zip(questions, tools, options, counts, strict=True)
        ]
        check_shared([tenant.plan for tenant in tenants], tools[0])
        missed = [i for i, tenant in enumerate(tenants) if not meets(tenant.run, questions[i].slo)]
        if not missed:
            return _shared(tenants, tools, options, counts, (bound, optimal, corrections, minimise), started)
        cuts += [(i, counts[i]) for i in missed]
    raise InfeasibleError("slo", f"{_ROUNDS} corrected mixes still miss an SLO", "relax the SLO or the rates")


def _check(questions: Sequence[Question]) -> None:
    if not questions:
        raise InputError("questions", "a shared plan needs at least one model")
    for question in questions:
        if question.devices != questions[0].devices:
            raise InputError(
                question.devices, "all models must share one cluster", f'for example "{questions[0].devices}"'
            )
        if not limited(question.slo):
            raise InputError(question.model, "has no SLO", "give a limit, for example ttft:1000,tpot:50")
        _rate(question)


def _rate(question: Question) -> float:
    """Mean requests/s of a question's arrivals."""
    work = question.workload
    span_s = float(work.arrival_s[-1] - work.arrival_s[0]) if work.num_requests else 0.0
    if work.max_concurrency or span_s <= 0:
        raise InputError(question.model, "needs requests with arrival times", "give a trace or --request-rate")
    return (work.num_requests - 1) / span_s


def _options(question: Question, tool: Backend) -> list[Option]:
    """A model's replicas that serve something within the SLO; of equal devices only those nothing beats."""
    single = replace(question, space=replace(question.space, replicas=(1,), devices=()))
    proposals, refusals = enumerate_plans(single, tool)
    if not proposals:
        rule = max(refusals.counts, key=lambda name: refusals.counts[name]) if refusals.counts else "space"
        raise InfeasibleError(rule, f"{question.model}: {refusals.examples.get(rule, '')}", refusals.relaxation)
    found: list[Option] = []
    hint: InfeasibleError | None = None
    for proposal in proposals:
        pool = proposal.plan.pools[0]
        takes = tuple(pool.devices if group.device == pool.device else 0 for group in tool.groups)
        try:
            served: Capacity = capacity(proposal.plan, question.workload, question.slo, backend=tool, close=0.05)
        except InfeasibleError as error:
            hint = error
            continue
        found.append(Option(proposal=proposal, takes=takes, rate=served.met_rate))
    if not found:
        detail = hint.detail if hint is not None else "no replica meets it"
        raise InfeasibleError("slo", f"{question.model}: {detail}", hint.relaxation if hint is not None else "")
    return [one for one in found if not any(_beats(other, one, found) for other in found)]


def _beats(other: Option, one: Option, order: Sequence[Option]) -> bool:
    if other is one or any(a > b for a, b in zip(other.takes, one.takes, strict=True)):
        return False
    return other.rate > one.rate or (
        other.rate == one.rate and (other.takes != one.takes or order.index(other) < order.index(one))
    )


def _choose(
    options: Sequence[Sequence[Option]],
    demands: Sequence[float],
    tool: Backend,
    cuts: Sequence[tuple[int, tuple[int, ...]]],
    minimise: str,
) -> tuple[list[tuple[int, ...]], float, bool]:
    """CP-SAT: replica counts of every model's options at the least weight. (counts, bound, proven)."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    counts: list[list[cp_model.IntVar]] = []
    for i, mine in enumerate(options):
        most = [min(g.count // t for g, t in zip(tool.groups, option.takes, strict=True) if t) for option in mine]
        counts.append([model.new_int_var(0, top, f"x{i}_{j}") for j, top in enumerate(most)])
        unit = 1e6 / demands[i]
        model.add(sum(int(o.rate * unit) * x for o, x in zip(mine, counts[i], strict=True)) >= 1_000_000)
    for which, tried in cuts:  # a mix that missed its SLO needs more of something
        more = []
        for j, n in enumerate(tried):
            literal = model.new_bool_var("")
            model.add(counts[which][j] >= n + 1).only_enforce_if(literal)
            more.append(literal)
        model.add_bool_or(more)
    flat = [(o, x) for mine, xs in zip(options, counts, strict=True) for o, x in zip(mine, xs, strict=True)]
    for g, group in enumerate(tool.groups):
        model.add(sum(o.takes[g] * x for o, x in flat) <= group.count)
    weights = [1.0 if minimise == "gpus" else group.usd_per_hour for group in tool.groups]
    cost = [round(_CENTS * sum(w * t for w, t in zip(weights, o.takes, strict=True))) for o, _ in flat]
    model.minimize(sum(c * x for c, (_, x) in zip(cost, flat, strict=True)))
    solver = fixed_solver()
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise _too_small(options, demands, tool)
    chosen = [tuple(int(solver.value(x)) for x in xs) for xs in counts]
    return chosen, solver.best_objective_bound / _CENTS, status == cp_model.OPTIMAL


def _too_small(options: Sequence[Sequence[Option]], demands: Sequence[float], tool: Backend) -> InfeasibleError:
    """What each model would take alone, and all together."""
    needed = 0
    parts = []
    for mine, demand in zip(options, demands, strict=True):
        least = min(int(-(-demand // o.rate)) * sum(o.takes) for o in mine)
        needed += least
        parts.append(f"{mine[0].proposal.plan.model} {least}")
    have = sum(group.count for group in tool.groups)
    detail = f"the models need about {needed} devices ({', '.join(parts)}), the cluster has {have}"
    return InfeasibleError("devices", detail, f"{needed} devices would serve all rates")


def _tenant(question: Question, tool: Backend, options: Sequence[Option], counts: Sequence[int]) -> Tenant:
    chosen = [(o, n) for o, n in zip(options, counts, strict=True) if n]
    pools: tuple[Pool, ...] = tuple(replace(o.proposal.plan.pools[0], replicas=n) for o, n in chosen)
    first = chosen[0][0].proposal.plan
    plan = replace(first, pools=pools, router="least_outstanding" if len(pools) > 1 else first.router)
    run = simulate_plan(tool, plan, [o.proposal.spec for o, _ in chosen], question.workload, question.slo)
    return Tenant(question=question, plan=plan, run=run)


def _shared(
    tenants: Sequence[Tenant],
    tools: Sequence[Backend],
    options: Sequence[Sequence[Option]],
    counts: Sequence[Sequence[int]],
    proof: tuple[float, bool, int, str],
    started: float,
) -> SharedPlan:
    bound, optimal, corrections, minimise = proof
    devices = sum(tenant.plan.devices for tenant in tenants)
    usd = sum(tool.usd_per_hour(tenant.plan) for tool, tenant in zip(tools, tenants, strict=True))
    value = float(devices) if minimise == "gpus" else usd
    labels = "; ".join(f"{tenant.plan.model}: {plan_label(tenant.plan)}" for tenant in tenants)
    kinds = sum(len(mine) for mine in options)
    certificate = Certificate(
        status="OPTIMAL" if optimal else "FEASIBLE",
        objective=value,
        bound=min(bound, value),
        gap=max(0.0, value - bound) / value if not optimal else 0.0,
        seconds=time.monotonic() - started,
        scope=f"counts of {kinds} replica kinds at their simulated capacities ({sum(map(sum, counts))} used: {labels})",
    )
    return SharedPlan(
        tenants=tuple(tenants), devices=devices, usd_per_hour=usd, certificate=certificate, corrections=corrections
    )
