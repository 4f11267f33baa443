"""Pareto: all plans that no other plan beats in two objectives at once, by bound and prune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from simtool.errors import InputError
from simtool.planners.backend import Backend
from simtool.planners.evaluate import meets, optimistic, simulate_plan
from simtool.planners.objective import Outcome, maximised, objective_value
from simtool.planners.question import Candidate, Objective, Question
from simtool.planners.relax import explain_infeasible
from simtool.planners.search import Search, check_question, open_search
from simtool.planners.space import Proposal, enumerate_plans
from simtool.planners.twins import twin_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoPoint:
    """A plan with both objective values (bounds where it was pruned)."""

    candidate: Candidate
    a: float
    b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoFront:
    """front: the plans that nothing beats, in the order of objective a. others: simulated and pruned plans.

    Closed by construction: every pruned plan's bounds are beaten in both objectives by a plan of the front.
    """

    objective_a: Objective
    objective_b: Objective
    front: tuple[ParetoPoint, ...]
    others: tuple[ParetoPoint, ...]


def pareto(
    question: Question,
    objective_a: Objective,
    objective_b: Objective,
    *,
    backend: Backend | None = None,
    progress: Callable[[str], None] | None = None,
) -> ParetoFront:
    """The front of two objectives over the plans of one pool that meet the SLO. Raises as `search.plan`."""
    from simtool.planners.real import open_backend

    if objective_a == objective_b:
        raise InputError(objective_a, "a front needs two different objectives")
    for objective in (objective_a, objective_b):
        check_question(replace(question, objective=objective))
    backend = backend or open_backend(replace(question, objective=objective_a), beside=objective_b)
    proposals, refusals = enumerate_plans(question, backend)
    search = open_search(question, backend, proposals)
    bounds = [_bounds(search, i, objective_a, objective_b) for i in range(len(proposals))]
    order = sorted(range(len(proposals)), key=lambda i: _key(objective_a, bounds[i][0]))
    front: list[ParetoPoint] = []
    others: list[ParetoPoint] = []
    seen: set[tuple[object, ...]] = set()
    for index in order:
        proposal, (a, b) = proposals[index], bounds[index]
        key = twin_key(proposal, search.demand)
        beaten = any(_dominates(objective_a, objective_b, point, a, b) for point in front)
        if beaten or key in seen:
            others.append(_pruned(proposal, a, b, "beaten in both" if beaten else "same run as another plan"))
            continue
        seen.add(key)
        point, met = _simulated(search, index, objective_a, objective_b)
        (front if met else others).append(point)
        front, lost = _front(front, objective_a, objective_b)
        others += lost
        if progress:
            progress(f"{len(seen)} simulated, {len(front)} on the front")
    if not front:
        raise explain_infeasible(search, refusals)
    front.sort(key=lambda point: _key(objective_a, point.a))
    return ParetoFront(objective_a=objective_a, objective_b=objective_b, front=tuple(front), others=tuple(others))


def _key(objective: Objective, value: float) -> float:
    """Smaller is better."""
    return -value if maximised(objective) else value


def _bounds(search: Search, index: int, a: Objective, b: Objective) -> tuple[float, float]:
    proposal, floors = search.proposals[index], search.bounds.floors_at(index)
    plan = proposal.plan
    usd = search.backend.usd_per_hour(plan)
    fleet = [(floors, proposal.replicas)]
    outcome: Outcome = optimistic(search.demand, fleet, search.question.slo, plan.devices, usd)
    return objective_value(a, outcome), objective_value(b, outcome)


def _dominates(objective_a: Objective, objective_b: Objective, point: ParetoPoint, a: float, b: float) -> bool:
    """Whether `point` is at least as good in both and better in one, or equal in both."""
    return _key(objective_a, point.a) <= _key(objective_a, a) and _key(objective_b, point.b) <= _key(objective_b, b)


def _front(
    points: Sequence[ParetoPoint], objective_a: Objective, objective_b: Objective
) -> tuple[list[ParetoPoint], list[ParetoPoint]]:
    """Split into those that nothing earlier or strictly better beats, and the rest."""
    kept: list[ParetoPoint] = []
    lost: list[ParetoPoint] = []
    for place, point in enumerate(points):
        beaten = any(
            _dominates(objective_a, objective_b, other, point.a, point.b)
            and ((other.a, other.b) != (point.a, point.b) or earlier < place)
            for earlier, other in enumerate(points)
            if other is not point
        )
        (lost if beaten else kept).append(point)
    return kept, lost


def _pruned(proposal: Proposal, a: float, b: float, reason: str) -> ParetoPoint:
    candidate = Candidate(
        plan=proposal.plan, bound=a, objective=None, metrics=None, meets_slo=None, status="pruned", reason=reason
    )
    return ParetoPoint(candidate=candidate, a=a, b=b)


def _simulated(search: Search, index: int, a: Objective, b: Objective) -> tuple[ParetoPoint, bool]:
    question, proposal = search.question, search.proposals[index]
    run = simulate_plan(search.backend, proposal.plan, [proposal.spec], question.workload, question.slo)
    met = meets(run, question.slo, a, b)
    value_a, value_b = objective_value(a, run.outcome), objective_value(b, run.outcome)
    candidate = Candidate(
        plan=proposal.plan, bound=value_a, objective=value_a, metrics=run.metrics, meets_slo=met, status="simulated"
    )
    return ParetoPoint(candidate=candidate, a=value_a, b=value_b), met
