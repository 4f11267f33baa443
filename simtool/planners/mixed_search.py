"""Search over combinations of replica templates: ask the master, prove its proposal wrong or simulate it, ask again.

Each proposal's own bound comes with prices (a linear-programming dual) that hold for every combination. They become a
row of the master, which then knows all that the proposal taught, concurrency and KV memory included (Benders'
decomposition). What still looks better than the best plan is simulated and cut off.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from simtool.plan import Plan, Router
from simtool.planners.backend import Backend
from simtool.planners.bound import Prices, work_bound
from simtool.planners.check import CheckError, check_plan
from simtool.planners.columns import Column
from simtool.planners.demand import Demand, demand_of
from simtool.planners.evaluate import Floors, Run, limited, optimistic, simulate_plan, simulated_candidate, with_work
from simtool.planners.master import Master
from simtool.planners.objective import better, objective_value
from simtool.planners.proposal_bounds import ProposalBounds, worst
from simtool.planners.question import Candidate, Question
from simtool.planners.relax import nearest_limits
from simtool.planners.search import Budget
from simtool.planners.space import Proposal, plan_label

Counts = tuple[int, ...]
_MOST_ROWS = 40  # price lists of the master; each costs a pass over all templates


@dataclass(slots=True, kw_only=True)
class MixedSearch:
    """A search in progress over combinations of templates."""

    question: Question
    backend: Backend
    demand: Demand
    columns: list[Column]
    bounds: ProposalBounds
    master: Master
    examined: dict[Counts, Candidate] = field(default_factory=dict)
    misplaced: int = 0
    best: Candidate | None = None
    best_counts: Counts = ()
    run: Run | None = None
    nearest: tuple[float, str, dict[str, float]] = (float("inf"), "", {})

    def plan(self, counts: Counts) -> Plan:
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
            profiles=question.profiles,
            router=router,
        )

    def bound(self, counts: Counts) -> tuple[float, Prices]:
        """The proven bound of one combination, infinitely bad where it cannot meet the SLO, and the prices."""
        question, plan = self.question, self.plan(counts)
        fleet = [(self.bounds.floors_at(index), n) for index, n in enumerate(counts) if n]
        work_s, prices = work_bound(self.demand, [(floors.step, n) for floors, n in fleet])
        usd = self.backend.usd_per_hour(plan)
        outcome = with_work(self.demand, fleet, question.slo, plan.devices, usd, work_s)
        if limited(question.slo) and outcome.good_requests < question.slo.attainment * outcome.requests:
            return worst(question), prices
        return objective_value(question.objective, outcome), prices

    def simulate(self, counts: Counts, bound: float) -> None:
        """Check and simulate a combination, and keep it if it is the best."""
        question, plan = self.question, self.plan(counts)
        specs = [column.spec for column, n in zip(self.columns, counts, strict=True) if n]
        run = simulate_plan(self.backend, plan, specs, question.workload, question.slo)
        candidate = simulated_candidate(plan, bound, run, question.objective, question.slo)
        self.examined[counts] = candidate
        value = candidate.objective
        if not candidate.meets_slo or value is None:
            if limited(question.slo):
                factor, limits = nearest_limits(run.result, question.slo)
                if factor < self.nearest[0]:
                    self.nearest = (factor, plan_label(plan), limits)
            return
        if self.best is None or better(question.objective, value, self.value()):
            self.best, self.best_counts, self.run = candidate, counts, run

    def prune(self, counts: Counts, bound: float, reason: str) -> None:
        """Leave a combination out for a proven reason."""
        self.examined[counts] = Candidate(
            plan=self.plan(counts),
            bound=bound,
            objective=None,
            metrics=None,
            meets_slo=None,
            status="pruned",
            reason=reason,
        )

    def value(self) -> float:
        """Objective of the best plan so far."""
        value = self.best.objective if self.best is not None else None
        return worst(self.question) if value is None else value

    @property
    def simulations(self) -> int:
        """Combinations simulated so far."""
        return sum(candidate.status == "simulated" for candidate in self.examined.values())

    def learn(self, prices: Prices) -> None:
        """Turn prices into rows of the master: shares of the demand a second, of templates and of what is in flight.

        A second of a request in flight costs `flight`; the requests in flight are at most the concurrency and at most
        the seats of the replicas, and each limit gives a row.
        """
        worth = prices.value(self.demand)
        if worth <= 0 or len(self.master.rates) >= _MOST_ROWS:
            return
        self.bounds.prices.append(prices)
        place = len(self.bounds.prices) - 1
        costs = [self.bounds.cost(index, place) for index in range(len(self.columns))]
        if self.demand.concurrency < float("inf"):
            self.master.add_row([cost / worth for cost in costs], prices.flight * self.demand.concurrency / worth)
        if prices.flight > 0:
            seats = [self.bounds.family_floors(index).step.in_flight for index in range(len(self.columns))]
            rates = [(cost + prices.flight * n) / worth for cost, n in zip(costs, seats, strict=True)]
            self.master.add_row(rates, 0.0)
        elif self.demand.concurrency == float("inf"):
            self.master.add_row([cost / worth for cost in costs], 0.0)


def open_mixed(question: Question, backend: Backend, columns: list[Column]) -> MixedSearch:
    """A search over combinations of `columns` that has tried nothing yet."""
    demand = demand_of(question.workload, prefix_caching=question.prefix_caching)
    proposals = [
        Proposal(
            plan=Plan(
                model=question.model,
                cluster=question.devices,
                pools=(column.pool,),
                weight_dtype=column.weight_dtype,
                kernel_library=question.kernel_library,
                profiles=question.profiles,
            ),
            spec=column.spec,
        )
        for column in columns
    ]
    bounds = ProposalBounds(question=question, backend=backend, demand=demand, proposals=proposals)
    dollars = question.objective in ("cost-per-token", "throughput-per-dollar")
    schedulers = list(dict.fromkeys((column.pool.scheduler, column.weight_dtype) for column in columns))
    floors = [bounds.family_floors(index) for index in range(len(columns))]
    spans = [float((demand.offset_s + floor.latency.e2e_s).max()) for floor in floors]
    costs: list[float] = []
    if question.objective in ("latency", "ttft", "tpot", "energy-per-token"):
        costs = [_leader_cost(question, backend, demand, *pair) for pair in zip(proposals, floors, strict=True)]
    master = Master(
        takes=[column.takes for column in columns],
        available=[group.count for group in backend.groups],
        kinds=[schedulers.index((column.pool.scheduler, column.weight_dtype)) for column in columns],
        cap=1.0 / max(min(spans), 1e-9),
        weights=[column.usd_per_hour if dollars else float(sum(column.takes)) for column in columns],
        leader_costs=costs,
        least_weight=question.objective == "gpus",
    )
    return MixedSearch(question=question, backend=backend, demand=demand, columns=columns, bounds=bounds, master=master)


def _leader_cost(question: Question, backend: Backend, demand: Demand, proposal: Proposal, floors: Floors) -> float:
    """A bound on the objective of every combination whose best template is this one, whatever stands beside it."""
    plan = proposal.plan
    no_work = replace(demand, decode_tokens=0.0, prefill_tokens=0.0, kv_reads=0.0, pairs=0.0)
    outcome = optimistic(no_work, [(floors, 1)], question.slo, plan.devices, backend.usd_per_hour(plan))
    return objective_value(question.objective, outcome)


def close_mixed(search: MixedSearch, budget: Budget, started: float, say: Callable[[str], None]) -> tuple[float, str]:
    """Ask, bound, simulate, cut off, until closed. Returns the bound left open and a status."""
    question, master = search.question, search.master
    first = by_hand(search)
    own, prices = search.bound(first)
    search.learn(prices)
    search.simulate(first, own)
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
        if 0 < budget.max_simulations <= search.simulations or 0 < budget.max_seconds <= spent:
            return bound, "FEASIBLE"
        master.tried.append(counts)
        _try(search, counts)
        say(f"{search.simulations} simulated, best {search.value():.6g}, bound {bound:.6g}")


def _try(search: MixedSearch, counts: Counts) -> None:
    """Bound a combination, learn from it, and simulate it where it may win."""
    question = search.question
    try:
        check_plan(search.plan(counts), search.backend)
    except CheckError as error:
        if error.rule != "node-boundary":  # the only rule that templates alone cannot keep
            raise
        search.misplaced += 1
        return
    own, prices = search.bound(counts)
    search.learn(prices)
    if search.best is None or better(question.objective, own, search.value()):
        search.simulate(counts, own)
    else:
        search.prune(counts, own, "bound cannot beat the best plan")


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


def by_hand(search: MixedSearch) -> Counts:
    """The smallest engine of each device type (shallowest, then least TP), on all devices of that type."""
    counts = [0] * len(search.columns)
    kind = search.master.kinds[0]
    for group in range(len(search.backend.groups)):
        own = [
            i for i, c in enumerate(search.columns) if c.takes[group] == sum(c.takes) and search.master.kinds[i] == kind
        ]
        if own:
            index = min(own, key=lambda i: (search.columns[i].pool.parallel.pp, sum(search.columns[i].takes), i))
            takes = search.columns[index].takes[group]
            counts[index] = search.backend.groups[group].slots(takes) or search.backend.groups[group].count // takes
    if not any(counts):
        counts[0] = 1
    return tuple(counts)
