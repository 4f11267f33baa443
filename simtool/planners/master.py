"""Master: CP-SAT picks how many replicas of each template to run, by the optimistic objective, within the devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from simtool.planners.certificate import fixed_solver

_SCALE = 1_000_000  # rates and prices as integers, rounded so that the bound stays valid
_ROUNDS = 40  # of the ratio iteration, which converges in a handful


@dataclass(slots=True, kw_only=True)
class Master:
    """Maximise min(cap, least over lists of sum x_c rate_c) / sum x_c weight_c, or minimise a leader's cost.

    takes[c]: devices a replica of c takes of each group; available: devices of each group. rates[m][c]: share of the
    demand a second under price list m. cap: rate at which nothing is gained any more (arrivals). weights[c]: devices or
    dollars. leader_costs: instead of the ratio, the least cost among the kinds used (latencies). tried: combinations
    already simulated. least_weight: minimise the summed weights (which are whole), whatever the rate.
    """

    takes: Sequence[tuple[int, ...]]
    available: Sequence[int]
    rates: Sequence[Sequence[float]]
    cap: float
    weights: Sequence[float]
    leader_costs: Sequence[float] = ()
    least_weight: bool = False
    tried: list[tuple[int, ...]] = field(default_factory=list)

    def best(self) -> tuple[tuple[int, ...], float] | None:
        """(replicas of each template, optimistic value) of the best combination not tried; None: there is none."""
        if self.least_weight:
            return self._least_weight()
        return self._least_cost() if self.leader_costs else self._best_ratio()

    def _least_weight(self) -> tuple[tuple[int, ...], float] | None:
        model, counts = self._model()
        weight = sum(int(w) * x for w, x in zip(self.weights, counts, strict=True))
        rate = sum(self._integer(r) * x for r, x in zip(self.rates[0], counts, strict=True))  # ties: the fastest first
        model.minimize(weight * (2 * _SCALE * (sum(self.available) + 1)) - rate)
        solution = self._solve(model, counts)
        if solution is None:
            return None
        return solution, sum(w * x for w, x in zip(self.weights, solution, strict=True))

    def _best_ratio(self) -> tuple[tuple[int, ...], float] | None:
        """Dinkelbach: maximise rate - ratio · weight until nothing is left; the last ratio is the optimum."""
        ratio, found = 0.0, None
        for _ in range(_ROUNDS):
            model, counts = self._model()
            top = model.new_int_var(0, self._integer(self.cap), "rate")
            for row in self.rates:
                rates = [self._integer(rate) for rate in row]
                model.add(top <= sum(r * x for r, x in zip(rates, counts, strict=True)))
            costs = [int(ratio * weight * self._unit() * (1 - 1e-12)) for weight in self.weights]
            model.maximize(top - sum(c * x for c, x in zip(costs, counts, strict=True)))
            solution = self._solve(model, counts)
            if solution is None:
                return None
            value = self.ratio(solution)
            if found is not None and value <= ratio * (1 + 1e-9):
                break
            found, ratio = solution, value
        return (found, ratio) if found is not None else None

    def ratio(self, counts: Sequence[int]) -> float:
        """Optimistic rate over weight of a combination."""
        rate = min([self.cap, *(sum(r * x for r, x in zip(row, counts, strict=True)) for row in self.rates)])
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
        solution = self._solve(model, counts)
        if solution is None:
            return None
        return solution, min(cost for cost, x in zip(self.leader_costs, solution, strict=True) if x)

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
        if self.tried:
            model.add_forbidden_assignments(counts, self.tried)
        return model, counts

    def _solve(self, model: Any, counts: Sequence[Any]) -> tuple[int, ...] | None:
        from ortools.sat.python import cp_model

        solver = fixed_solver()
        status = solver.solve(model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        return tuple(int(solver.value(x)) for x in counts)

    def _peak(self) -> float:
        return max(max(row) for row in self.rates) or 1.0

    def _unit(self) -> float:
        return _SCALE / self._peak()

    def _integer(self, rate: float) -> int:
        return int(min(rate, 1e6 * self._peak()) * self._unit()) + 1
