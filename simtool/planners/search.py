"""Search: the best plan of a space, with a proof. Propose, bound, simulate what may still win, close the gap."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from simtool.errors import InputError
from simtool.planners.backend import Backend
from simtool.planners.baseline import baseline
from simtool.planners.demand import Demand, demand_of
from simtool.planners.evaluate import Run, interval_metrics, limited, simulate_plan, simulated_candidate
from simtool.planners.objective import better, maximised, relative_gap
from simtool.planners.proposal_bounds import ProposalBounds, worst
from simtool.planners.question import Answer, Candidate, Question
from simtool.planners.space import Proposal, Refusals, enumerate_plans
from simtool.planners.twins import twin_key

_CHEAP, _REFRESHED, _TIGHT = range(3)  # how much a proposal's bound in the heap knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When to stop before the space is closed (0: never). The answer then states the gap that is left."""

    max_simulations: int = 0
    max_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Search:
    """A search in progress: what is known of each proposal."""

    question: Question
    backend: Backend
    demand: Demand
    proposals: list[Proposal]
    bounds: ProposalBounds
    candidates: dict[int, Candidate] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    twins: dict[tuple[object, ...], int] = field(default_factory=dict)
    best: int = -1

    def floor_factor(self, index: int) -> float:
        """By how much the SLO's limits must at least grow for this plan (<= 1: its floors say nothing against it)."""
        slo, floor = self.question.slo, self.bounds.floors_at(index).latency
        ratios = np.zeros(len(floor.ttft_s))
        limits = ((floor.ttft_s, slo.ttft_s), (floor.tpot_s, slo.tpot_s), (floor.e2e_s, slo.e2e_s))
        for column_s, limit_s in limits:
            if limit_s > 0:
                ratios = np.maximum(ratios, column_s / limit_s)
        return float(np.sort(ratios)[max(int(np.ceil(slo.attainment * len(ratios))) - 1, 0)])

    def simulate(self, index: int, bound: float) -> None:
        """Simulate a proposal, unless an equal one was, and keep it if it is the best that meets the SLO."""
        proposal, question = self.proposals[index], self.question
        key = twin_key(proposal, self.demand)
        known = self.twins.setdefault(key, index)
        if known != index:
            twin = self.candidates[known]
            self.candidates[index] = replace(
                twin, plan=proposal.plan, status="pruned", reason="same run as another plan"
            )
            return
        run = simulate_plan(self.backend, proposal.plan, [proposal.spec], question.workload, question.slo)
        candidate = simulated_candidate(proposal.plan, bound, run, question.objective, question.slo)
        self.candidates[index] = candidate
        value = candidate.objective
        if not candidate.meets_slo or value is None:
            return
        self.runs.setdefault(index, run)
        if self.best < 0 or better(question.objective, value, self.value()):
            self.runs.pop(self.best, None)
            self.best = index
        elif index != self.best:
            self.runs.pop(index, None)

    def value(self) -> float:
        """Objective of the best plan so far."""
        found = self.candidates[self.best].objective if self.best >= 0 else None
        return worst(self.question) if found is None else found

    def prune(self, index: int, bound: float, reason: str) -> None:
        """Leave a proposal out for a proven reason."""
        plan = self.proposals[index].plan
        self.candidates[index] = Candidate(
            plan=plan, bound=bound, objective=None, metrics=None, meets_slo=None, status="pruned", reason=reason
        )


def open_search(question: Question, backend: Backend, proposals: list[Proposal]) -> Search:
    """A search that has tried nothing yet."""
    demand = demand_of(question.workload, prefix_caching=question.prefix_caching)
    bounds = ProposalBounds(question=question, backend=backend, demand=demand, proposals=proposals)
    return Search(question=question, backend=backend, demand=demand, proposals=proposals, bounds=bounds)


def plan(
    question: Question,
    *,
    backend: Backend | None = None,
    budget: Budget | None = None,
    progress: Callable[[str], None] | None = None,
) -> Answer:
    """The best plan for a question and the proof. Mixed device types: see `planners.mixed`.

    Raises InputError (malformed question) and InfeasibleError (no plan: names what binds and what would help).
    """
    from simtool.planners.real import open_backend
    from simtool.planners.relax import explain_infeasible

    started = time.monotonic()
    check_question(question)
    backend = backend or open_backend(question)
    say = progress or (lambda _: None)
    proposals, refusals = enumerate_plans(question, backend)
    say(f"{len(proposals)} legal plans")
    search = open_search(question, backend, proposals)
    open_bound = worst(question)
    if proposals:
        open_bound = close(search, budget or Budget(), started, say)
    if search.best < 0:
        raise explain_infeasible(search, refusals)
    return answer(search, refusals, open_bound, started)


def check_question(question: Question) -> None:
    """Raise InputError for a question that no plan could answer."""
    maximised(question.objective)
    slo, workload = question.slo, question.workload
    if workload.num_requests == 0:
        raise InputError(workload.source or "workload", "it has no requests", "ask for at least one")
    if not 0.0 < slo.attainment <= 1.0:
        raise InputError(slo.attainment, "attainment is a share of requests", "give a number in (0, 1]")
    if min(slo.ttft_s, slo.tpot_s, slo.e2e_s) < 0:
        raise InputError(slo, "limits must not be negative", "0 means no limit")
    if question.objective == "goodput-per-gpu" and not limited(slo):
        raise InputError(question.objective, "goodput needs an SLO", "for example ttft:1000,tpot:50")


def close(search: Search, budget: Budget, started: float, say: Callable[[str], None]) -> float:
    """Simulate in the order of bounds until nothing open can win. Returns the best bound left open (or `worst`).

    A proposal comes up three times at most: with a cheap bound, with the cheap bound by all prices found since, and
    with its own bound; each time it goes back into its place in the order.
    """
    question, bounds = search.question, search.bounds
    first = baseline(search.proposals)
    search.simulate(first, bounds.tight(first))
    sign = -1.0 if maximised(question.objective) else 1.0
    heap = [(sign * bounds.cheap(i), _CHEAP, i) for i in range(len(search.proposals)) if i != first]
    heapq.heapify(heap)
    simulations = 1
    while heap:
        key, level, index = heapq.heappop(heap)
        bound = sign * key
        if search.best >= 0 and not better(question.objective, bound, search.value()):
            _leave(search, sign, [(key, level, index), *heap], "bound cannot beat the best plan")
            break
        if level != _TIGHT:
            bound = bounds.cheap(index) if level == _CHEAP else bounds.tight(index)
            if bound == worst(question):
                search.prune(index, bound, "no request schedule can meet the SLO")
            else:
                heapq.heappush(heap, (max(key, sign * bound), level + 1, index))
            continue
        if _spent(budget, simulations, started):
            _leave(search, sign, [(key, level, index), *heap], "not tried: the budget ran out")
            return bound
        search.simulate(index, bound)
        simulations += 1
        say(f"{simulations} simulated, {len(heap)} open, best {search.value():.6g}, bound {bound:.6g}")
    return worst(question)


def _leave(search: Search, sign: float, heap: list[tuple[float, int, int]], reason: str) -> None:
    for key, _, index in heap:
        search.prune(index, sign * key, reason)


def _spent(budget: Budget, simulations: int, started: float) -> bool:
    too_many = 0 < budget.max_simulations <= simulations
    return too_many or 0 < budget.max_seconds <= time.monotonic() - started


def answer(search: Search, refusals: Refusals, open_bound: float, started: float) -> Answer:
    """The answer of a finished search."""
    question, backend = search.question, search.backend
    proposal, run = search.proposals[search.best], search.runs[search.best]
    best = replace(search.candidates[search.best], status="best")
    search.candidates[search.best] = best
    intervals = interval_metrics(backend, proposal.plan, [proposal.spec], question.workload, question.slo, run)
    candidates = tuple(search.candidates[i] for i in sorted(search.candidates))
    pruned = sum(candidate.status == "pruned" for candidate in candidates)
    return Answer(
        question=question,
        best=best,
        result=run.result,
        intervals=intervals,
        candidates=candidates,
        illegal=dict(refusals.counts),
        legal=len(search.proposals),
        simulated=len(candidates) - pruned,
        pruned=pruned,
        gap=relative_gap(question.objective, search.value(), open_bound),
        provenance=dict(proposal.spec.provenance),
        wall_s=time.monotonic() - started,
    )
