"""Master: how many replicas of each template to run, by the optimistic objective, within the devices.

A list of all combinations where that is short, CP-SAT where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.planners.certificate import fixed_solver
from simtool.planners.listing import Listing, list_combinations

_SCALE = 1_000_000  # rates and prices as integers, rounded so that the bound stays valid
_LISTED = 200_000
Counts = tuple[int, ...]
_SOLVER_LIMIT = 1.0  # deterministic seconds a call; an unproven optimum only loosens the bound
_ROUNDS = 40  # of the ratio iteration, which converges in a handful


@dataclass(slots=True, kw_only=True)
class Master:
    """Maximise min(cap, least over rows of extra + sum x_c rate_c) / sum x_c weight_c, or minimise a leader's cost.

    takes[c]: devices a replica of c takes of each group; available: devices of each group. kinds[c]: replicas of unlike
    kinds (scheduler knobs) do not go together. rates[m][c], extra[m]: share of the demand a second under price list m,
    of a replica and of the requests in flight. cap: rate at which nothing is gained any more (arrivals). weights[c]:
    devices or dollars. leader_costs: instead of the ratio, the least cost among the kinds used (latencies).
    least_weight: minimise the summed weights (which are whole), whatever the rate. tried: combinations already looked
    at. listed: up to so many combinations need no solver.
    """

    takes: Sequence[tuple[int, ...]]
    available: Sequence[int]
    kinds: Sequence[int]
    cap: float
    weights: Sequence[float]
    leader_costs: Sequence[float] = ()
    least_weight: bool = False
    rates: list[list[float]] = field(default_factory=list)
    extra: list[float] = field(default_factory=list)
    tried: list[Counts] = field(default_factory=list)
    listed: int = _LISTED
    listing: Listing | None = None
    total: int = -1

    def add_row(self, rates: Sequence[float], extra: float) -> None:
        """Another price list. Rates beyond the cap say no more than the cap does."""
        self.rates.append([min(rate, self.cap) for rate in rates])
        self.extra.append(min(extra, self.cap))

    def best(self) -> tuple[Counts, float] | None:
        """(best combination not tried, a value that none beats); None: all were tried.

        Few combinations are listed, and the value is their own; more are left to CP-SAT, whose bound it is.
        """
        if self.combinations() <= self.listed:
            return self._best_listed()
        if self.least_weight:
            return self._least_weight()
        return self._least_cost() if self.leader_costs else self._best_ratio()

    def _best_listed(self) -> tuple[Counts, float] | None:
        if self.listing is None:
            self.listing = list_combinations(self.takes, self.available, self.kinds, self.cap)
        listing = self.listing
        listing.close(self.tried)
        for place in range(listing.seen_rows, len(self.rates)):
            listing.lower(self.rates[place], self.extra[place])
        weight = listing.counts @ np.asarray(self.weights, np.float64)
        value: NDArray[np.float64] = np.asarray(weight, np.float64)
        if self.leader_costs and not self.least_weight:
            costs = np.where(listing.counts > 0, np.asarray(self.leader_costs), np.inf)
            value = np.asarray(costs.min(axis=1))
        elif not self.least_weight:
            value = -listing.rate / weight
        places = np.flatnonzero(listing.open)
        if not len(places):
            return None
        # among equals the fastest, then the smallest
        first = places[np.lexsort((weight[places], -listing.rate[places], value[places]))[0]]
        return listing.row(int(first)), abs(float(value[first]))

    def _least_weight(self) -> tuple[Counts, float] | None:
        model, counts = self._model()
        weight = sum(int(w) * x for w, x in zip(self.weights, counts, strict=True))
        rate = sum(self._integer(r) * x for r, x in zip(self.rates[0], counts, strict=True))  # ties: the fastest first
        step = 2 * _SCALE * (sum(self.available) + 1)
        model.minimize(weight * step - rate)
        found = self._solve(model, counts)
        return (found[0], float(-(-found[1] // step))) if found is not None else None

    def _best_ratio(self) -> tuple[Counts, float] | None:
        """Dinkelbach: maximise rate - ratio · weight until nothing is left; the last ratio is the optimum."""
        ratio, best, least = 0.0, None, min(self.weights)
        value = float("inf")
        for _ in range(_ROUNDS):
            model, counts = self._model()
            top = model.new_int_var(0, self._integer(self.cap), "rate")
            for row, extra in zip(self.rates, self.extra, strict=True):
                rates = [self._integer(rate) for rate in row]
                model.add(top <= self._integer(extra) + sum(r * x for r, x in zip(rates, counts, strict=True)))
            costs = [int(ratio * weight * self._unit() * (1 - 1e-12)) for weight in self.weights]
            model.maximize(top - sum(c * x for c, x in zip(costs, counts, strict=True)))
            found = self._solve(model, counts)
            if found is None:
                return None
            # no combination has rate - ratio · weight above what is left
            value = min(value, ratio + max(0.0, found[1]) / self._unit() / least)
            own = self.ratio(found[0])
            if best is not None and own <= ratio * (1 + 1e-9):
                break
            best, ratio = found[0], own
        return (best, value) if best is not None else None

    def ratio(self, counts: Sequence[int]) -> float:
        """Optimistic rate over weight of a combination."""
        rows = zip(self.rates, self.extra, strict=True)
        rate = min([self.cap, *(extra + sum(r * x for r, x in zip(row, counts, strict=True)) for row, extra in rows)])
        return rate / sum(w * x for w, x in zip(self.weights, counts, strict=True))

    def _least_cost(self) -> tuple[tuple[int, ...], float] | None:
        model, counts = self._model()
        leads = [model.new_bool_var(f"l{i}") for i in range(len(counts))]
        model.add_exactly_one(leads)
        for lead, count in zip(leads, counts, strict=True):
            model.add(count >= 1).only_enforce_if(lead)
        top = max(self.leader_costs) or 1.0
        costs = [int(cost / top * _SCALE) for cost in self.leader_costs]
        # among equal leaders: the most work a second
        extra = [min(_SCALE, int(_SCALE * self.rates[0][c] / self._peak())) for c in range(len(counts))]
        best_rate = sum(e * x for e, x in zip(extra, counts, strict=True))
        room = _SCALE * (sum(self.available) + 1)
        model.minimize(room * sum(c * lead for c, lead in zip(costs, leads, strict=True)) - best_rate)
        found = self._solve(model, counts)
        return (found[0], max(0.0, -(-found[1] // room)) / _SCALE * top) if found is not None else None

    def _model(self) -> tuple[Any, list[Any]]:
        from ortools.sat.python import cp_model

        model = cp_model.CpModel()
        most = [
            min(have // take for have, take in zip(self.available, takes, strict=True) if take) for takes in self.takes
        ]
        counts = [model.new_int_var(0, top, f"x{i}") for i, top in enumerate(most)]
        for group, have in enumerate(self.available):
            model.add(sum(t[group] * x for t, x in zip(self.takes, counts, strict=True)) <= have)
        model.add(sum(counts) >= 1)
        groups = sorted(set(self.kinds))
        chosen = {kind: model.new_bool_var(f"k{kind}") for kind in groups}
        model.add_exactly_one(chosen.values())
        for count, kind, top in zip(counts, self.kinds, most, strict=True):
            model.add(count <= top * chosen[kind])
        if self.tried:
            model.add_forbidden_assignments(counts, self.tried)
        return model, counts

    def _solve(self, model: Any, counts: Sequence[Any]) -> tuple[Counts, float] | None:
        """(solution, the solver's bound on the objective), proven optimal or not."""
        from ortools.sat.python import cp_model

        solver = fixed_solver(_SOLVER_LIMIT)
        status = solver.solve(model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        return tuple(int(solver.value(x)) for x in counts), float(solver.best_objective_bound)

    def combinations(self) -> int:
        """How many combinations the devices allow."""
        if self.total < 0:
            self.total = self._count()
        return self.total

    def _count(self) -> int:
        total = 0
        for kind in set(self.kinds):
            ways = {tuple(0 for _ in self.available): 1}
            for takes in (t for t, k in zip(self.takes, self.kinds, strict=True) if k == kind):
                for used in product(*(range(have + 1) for have in self.available)):  # rising: any number of replicas
                    before = ways.get(tuple(u - t for u, t in zip(used, takes, strict=True)), 0)
                    if before:
                        ways[used] = ways.get(used, 0) + before
            total += sum(ways.values()) - 1
        return total

    def _peak(self) -> float:
        return self.cap

    def _unit(self) -> float:
        return _SCALE / self._peak()

    def _integer(self, rate: float) -> int:
        return int(min(rate, 1e6 * self._peak()) * self._unit()) + 1
