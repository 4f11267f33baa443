"""Bounds of proposals, cheap ones first: most plans are ruled out without solving anything or looking at their tables.

A family is the engines that differ in nothing but the token budget: whatever the smaller budget can do, the widest can.
Its floors, under prices that some other plan's bound was proven with, bound each of its plans in microseconds. Only a
plan that survives gets floors and prices of its own, and these prices then judge the plans after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from simtool.planners.backend import Backend
from simtool.planners.bound import Prices, work_bound
from simtool.planners.demand import Demand
from simtool.planners.evaluate import Floors, floors_of, limited, with_work
from simtool.planners.objective import maximised, objective_value
from simtool.planners.question import Question
from simtool.planners.space import Proposal
from simtool.planners.value import least_cost, least_seconds
from simtool.simulator.engine import EngineSpec

_MOST_LISTS = 8  # price lists kept; each costs a pass over every family


@dataclass(slots=True, kw_only=True)
class ProposalBounds:
    """What is known of each proposal before it is simulated. Proposals keep their engines alive, so ids are keys."""

    question: Question
    backend: Backend
    demand: Demand
    proposals: list[Proposal]
    prices: list[Prices] = field(default_factory=list)
    floors: dict[int, Floors] = field(default_factory=dict)  # by id of the engine
    families: dict[int, Floors] = field(default_factory=dict)  # by family
    widest: dict[int, EngineSpec] = field(default_factory=dict)  # by family
    costs: dict[tuple[int, int], float] = field(default_factory=dict)  # by family and price list

    def floors_at(self, index: int) -> Floors:
        """Floors of a proposal's own engine."""
        spec = self.proposals[index].spec
        if id(spec) not in self.floors:
            self.floors[id(spec)] = floors_of(spec, self.demand, prefix_caching=self.question.prefix_caching)
        return self.floors[id(spec)]

    def family_floors(self, index: int) -> Floors:
        """Floors of the family's widest engine, with the most KV blocks that any of it has."""
        family = _family(self.proposals[index].spec)
        if not self.widest:
            self._meet()
        if family not in self.families:
            floors = floors_of(self.widest[family], self.demand, prefix_caching=self.question.prefix_caching)
            self.families[family] = floors
        return self.families[family]

    def _meet(self) -> None:
        for proposal in self.proposals:
            spec = proposal.spec
            known = self.widest.setdefault(_family(spec), spec)
            wide = max(known, spec, key=lambda one: one.tables.token_s.shape[1])
            blocks = max(known.num_blocks, spec.num_blocks)
            self.widest[_family(spec)] = wide if wide.num_blocks == blocks else replace(wide, num_blocks=blocks)

    def cost(self, index: int, place: int) -> float:
        """Least price of a replica-second of a proposal's family under price list number `place`."""
        key = (_family(self.proposals[index].spec), place)
        if key not in self.costs:
            self.costs[key] = least_cost(self.prices[place], self.family_floors(index).step)
        return self.costs[key]

    def cheap(self, index: int) -> float:
        """The bound by all price lists so far, concurrency included; by latencies alone where there is no list."""
        proposal, floors = self.proposals[index], self.family_floors(index)
        work_s = 0.0
        for place, prices in enumerate(self.prices):
            fleet = [(self.cost(index, place), floors.step.in_flight, proposal.replicas)]
            work_s = max(work_s, least_seconds(self.demand, prices, fleet))
        return self._objective(proposal, floors, work_s)

    def tight(self, index: int) -> float:
        """The best proven bound of a proposal; infinitely bad where no run can meet the SLO."""
        proposal, floors, slo = self.proposals[index], self.floors_at(index), self.question.slo
        if limited(slo) and floors.latency.share_within(slo.ttft_s, slo.tpot_s, slo.e2e_s) < slo.attainment:
            return worst(self.question)
        work_s, prices = work_bound(self.demand, [(floors.step, proposal.replicas)])
        if len(self.prices) < _MOST_LISTS:
            self.prices.append(prices)
        return self._objective(proposal, floors, work_s)

    def _objective(self, proposal: Proposal, floors: Floors, work_s: float) -> float:
        plan = proposal.plan
        fleet, usd = [(floors, proposal.replicas)], self.backend.usd_per_hour(plan)
        outcome = with_work(self.demand, fleet, self.question.slo, plan.devices, usd, work_s)
        return objective_value(self.question.objective, outcome)


def _family(spec: EngineSpec) -> int:
    """Engines cut from the same tables share the arrays that do not depend on the token budget."""
    return id(spec.tables.decode_s)


def worst(question: Question) -> float:
    """The value that every plan beats."""
    return -float("inf") if maximised(question.objective) else float("inf")
