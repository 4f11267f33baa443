"""Mixed clusters: which replicas to build from unlike devices, and how many of each.

Templates come from `columns`, CP-SAT picks the counts by a proven optimistic objective (`master`), an independent
checker verifies them, the simulator judges; a combination that was simulated is cut off and the solver asked again,
until its optimum cannot beat the best simulated plan (gap 0) or the budget ends (the gap is stated).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from simtool.errors import InfeasibleError
from simtool.plan import Plan, Router
from simtool.planners.backend import Backend
from simtool.planners.certificate import Certificate
from simtool.planners.check import check_plan
from simtool.planners.columns import Column, enumerate_columns
from simtool.planners.demand import Demand, demand_of
from simtool.planners.evaluate import (
    Floors,
    Run,
    floors_of,
    interval_metrics,
    optimistic,
    simulate_plan,
    simulated_candidate,
)
from simtool.planners.master import Master
from simtool.planners.objective import better, objective_value, relative_gap
from simtool.planners.question import Answer, Candidate, Question
from simtool.planners.relax import nearest_limits
from simtool.planners.search import Budget, check_question, worst
from simtool.planners.space import Refusals, plan_label
from simtool.planners.value import price_list, value_rates

DEFAULT_BUDGET = Budget(max_simulations=60, max_seconds=60.0)
_LISTS = 3  # price lists: those of the first templates of each kind


@dataclass(slots=True, kw_only=True)
class MixedSearch:
    """A search in progress over combinations of templates."""

    question: Question
    backend: Backend
    demand: Demand
    columns: list[Column]
    floors: list[Floors]
    candidates: list[Candidate] = field(default_factory=list)
    best: Candidate | None = None
    best_counts: tuple[int, ...] = ()
    run: Run | None = None
    nearest: tuple[float, str, dict[str, float]] = (float("inf"), "", {})

    def plan(self, counts: tuple[int, ...]) -> Plan:
        """The plan of so many replicas of each template. Unlike replicas are balanced by outstanding requests."""
        question = self.question
        pools = tuple(replace(column.pool, replicas=n) for column, n in zip(self.columns, counts, strict=True) if n)
        used = next(column for column, n in zip(self.columns, counts, strict=True) if n)
        router: Router = "least_outstanding" if len(pools) > 1 else "round_robin"
        chosen = [name for name in question.space.router if name != "round_robin"]
        if chosen:
            router = "prefix_aware" if chosen[0] == "prefix_aware" else "least_outstanding"
        return Plan(
            model=question.model,
            cluster=question.devices,
            pools=pools,
            weight_dtype=used.weight_dtype,
            kernel_library=question.kernel_library,
            router=router,
        )

    def bound(self, counts: tuple[int, ...]) -> float:
        """The proven bound of one combination."""
        fleet = [(floors, n) for floors, n in zip(self.floors, counts, strict=True) if n]
        plan = self.plan(counts)
        outcome = optimistic(self.demand, fleet, self.question.slo, plan.devices, self.backend.usd_per_hour(plan))
        return objective_value(self.question.objective, outcome)

    def simulate(self, counts: tuple[int, ...], bound: float) -> None:
        """Check and simulate a combination, and keep it if it is the best."""
        question, plan = self.question, self.plan(counts)
        check_plan(plan, self.backend)
        specs = [column.spec for column, n in zip(self.columns, counts, strict=True) if n]
        run = simulate_plan(self.backend, plan, specs, question.workload, question.slo)
        candidate = simulated_candidate(plan, bound, run, question.objective, question.slo)
        self.candidates.append(candidate)
        value = candidate.objective
        if not candidate.meets_slo or value is None:
            factor, limits = nearest_limits(run.result, question.slo)
            if factor < self.nearest[0]:
                self.nearest = (factor, plan_label(plan), limits)
            return
        if self.best is None or better(question.objective, value, self.value()):
            self.best, self.best_counts, self.run = candidate, counts, run

    def value(self) -> float:
        """Objective of the best plan so far."""
        value = self.best.objective if self.best is not None else None
        return worst(self.question) if value is None else value


def plan_mixed(
    question: Question,
    *,
    backend: Backend | None = None,
    budget: Budget | None = None,
    most_mixed: int = 64,
    progress: Callable[[str], None] | None = None,
) -> tuple[Answer, Certificate]:
    """The best plan on a cluster of unlike devices, with the certificate of the combination search.

    most_mixed: mixed pipelines that are compiled (the most promising); the certificate's scope states how many were
    left out. Raises as `search.plan`.
    """
    from simtool.planners.real import open_backend

    started = time.monotonic()
    check_question(question)
    backend = backend or open_backend(question)
    say = progress or (lambda _: None)
    columns, refusals, left_out = enumerate_columns(question, backend, most_mixed=most_mixed)
    if not columns:
        rule = max(refusals.counts, key=lambda name: refusals.counts[name]) if refusals.counts else "space"
        raise InfeasibleError(rule, refusals.examples.get(rule, "no replica fits"), refusals.relaxation)
    say(f"{len(columns)} replica templates")
    demand = demand_of(question.workload, prefix_caching=question.prefix_caching)
    floors = [floors_of(column.spec, demand, prefix_caching=question.prefix_caching) for column in columns]
    search = MixedSearch(question=question, backend=backend, demand=demand, columns=columns, floors=floors)
    open_bound, status = _close(search, budget or DEFAULT_BUDGET, started, say)
    if search.best is None:
        raise _missed(search)
    scope = f"all counts of {len(columns)} replica templates" + (
        f"; {left_out} mixed ones left out" if left_out else ""
    )
    certificate = Certificate(
        status=status,
        objective=search.value(),
        bound=open_bound if status != "OPTIMAL" else search.value(),
        gap=relative_gap(question.objective, search.value(), open_bound),
        seconds=time.monotonic() - started,
        scope=scope,
    )
    return _answer(search, refusals, certificate, started), certificate


def _master(search: MixedSearch) -> Master:
    question, columns = search.question, search.columns
    steps = [floors.step for floors in search.floors]
    kinds = {column.spec.tables.token_s.shape[0]: index for index, column in reversed(list(enumerate(columns)))}
    lists = [price_list(search.demand, steps[index]) for index in list(kinds.values())[:_LISTS]]
    rates = [value_rates(search.demand, prices, steps) for prices in lists]
    spans = [float((search.demand.offset_s + floors.latency.e2e_s).max()) for floors in search.floors]
    dollars = question.objective in ("cost-per-token", "throughput-per-dollar")
    costs: list[float] = []
    if question.objective in ("latency", "ttft", "tpot", "energy-per-token"):
        costs = [_leader_cost(search, index) for index in range(len(columns))]
    return Master(
        takes=[column.takes for column in columns],
        available=[group.count for group in search.backend.groups],
        rates=rates,
        cap=1.0 / max(min(spans), 1e-9),
        weights=[column.usd_per_hour if dollars else float(sum(column.takes)) for column in columns],
        leader_costs=costs,
        least_weight=question.objective == "gpus",
    )


def _leader_cost(search: MixedSearch, index: int) -> float:
    """A bound on the objective of every combination whose best template is this one, whatever stands beside it."""
    counts = tuple(int(i == index) for i in range(len(search.columns)))
    plan = search.plan(counts)
    no_work = replace(search.demand, decode_tokens=0.0, prefill_tokens=0.0, kv_reads=0.0, pairs=0.0)
    outcome = optimistic(
        no_work, [(search.floors[index], 1)], search.question.slo, plan.devices, search.backend.usd_per_hour(plan)
    )
    return objective_value(search.question.objective, outcome)


def _close(search: MixedSearch, budget: Budget, started: float, say: Callable[[str], None]) -> tuple[float, str]:
    """Ask, simulate, cut off, until closed. Returns the bound left open and a status."""
    question = search.question
    master = _master(search)
    first = _baseline(search)
    search.simulate(first, search.bound(first))
    master.tried.append(first)
    while True:
        found = master.best()
        if found is None:
            return worst(question), "OPTIMAL"
        counts, value = found
        bound = _as_objective(search, value)
        if search.best is not None and not better(question.objective, bound, search.value()):
            return bound, "OPTIMAL"
        spent = time.monotonic() - started
        if 0 < budget.max_simulations <= len(search.candidates) or 0 < budget.max_seconds <= spent:
            return bound, "FEASIBLE"
        master.tried.append(counts)
        own = search.bound(counts)
        if search.best is None or better(question.objective, own, search.value()):
            search.simulate(counts, own)
            say(f"{len(search.candidates)} simulated, best {search.value():.6g}, bound {bound:.6g}")


def _as_objective(search: MixedSearch, value: float) -> float:
    """The master's value in the objective's unit: demands a second and weight → tokens, requests, dollars."""
    demand = search.demand
    match search.question.objective:
        case "throughput-per-gpu":
            return value * demand.output_tokens
        case "goodput-per-gpu":
            return value * demand.requests
        case "throughput-per-dollar":
            return value * demand.output_tokens * 3600
        case "cost-per-token":
            return 1e6 / (value * demand.output_tokens * 3600)
        case _:
            return value


def _baseline(search: MixedSearch) -> tuple[int, ...]:
    """By hand: the smallest engine of each device type (shallowest, then least TP), on all devices of that type."""
    counts = [0] * len(search.columns)
    for group in range(len(search.backend.groups)):
        own = [i for i, c in enumerate(search.columns) if c.takes[group] == sum(c.takes)]
        if own:
            index = min(own, key=lambda i: (search.columns[i].pool.parallel.pp, sum(search.columns[i].takes), i))
            counts[index] = search.backend.groups[group].count // search.columns[index].takes[group]
    if not any(counts):
        counts[0] = 1
    return tuple(counts)


def _missed(search: MixedSearch) -> InfeasibleError:
    factor, label, limits = search.nearest
    needed = ",".join(f"{name}:{seconds * 1e3:.4g}" for name, seconds in limits.items())
    detail = f"no combination simulated meets it; the nearest ({label}) misses by a factor of {factor:.3g}"
    return InfeasibleError("slo", detail, f"--slo {needed} is met by {label}")


def _answer(search: MixedSearch, refusals: Refusals, certificate: Certificate, started: float) -> Answer:
    question, best, run = search.question, search.best, search.run
    assert best is not None
    assert run is not None
    specs = [column.spec for column, n in zip(search.columns, search.best_counts, strict=True) if n]
    intervals = interval_metrics(search.backend, best.plan, specs, question.workload, question.slo, run)
    winner = replace(best, status="best")
    candidates = tuple(winner if candidate is best else candidate for candidate in search.candidates)
    provenance = {family: kind for spec in specs for family, kind in spec.provenance.items()}
    return Answer(
        question=question,
        best=winner,
        result=run.result,
        intervals=intervals,
        candidates=candidates,
        illegal=dict(refusals.counts),
        legal=len(search.columns),
        simulated=len(candidates),
        pruned=0,
        gap=certificate.gap,
        provenance=provenance,
        wall_s=time.monotonic() - started,
    )
