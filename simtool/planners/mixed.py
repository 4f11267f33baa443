"""Mixed clusters: which replicas to build from unlike devices, and how many of each.

Templates come from `columns`, CP-SAT picks the counts by a proven optimistic objective (`master`), an independent
checker verifies them, the simulator judges (`mixed_search`), until the solver's optimum cannot beat the best simulated
plan (gap 0) or the budget ends (the gap is stated). Plans on one device type alone are among the combinations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from simtool.errors import InfeasibleError
from simtool.planners.backend import Backend
from simtool.planners.certificate import Certificate
from simtool.planners.columns import enumerate_columns
from simtool.planners.evaluate import interval_metrics, limited
from simtool.planners.mixed_search import MixedSearch, close_mixed, open_mixed
from simtool.planners.objective import relative_gap
from simtool.planners.question import Answer, Candidate, Question
from simtool.planners.relax import overloaded
from simtool.planners.search import Budget, check_question
from simtool.planners.space import Refusals

DEFAULT_BUDGET = Budget(max_simulations=60, max_seconds=60.0)


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
    search = open_mixed(question, backend, columns)
    open_bound, status = close_mixed(search, budget or DEFAULT_BUDGET, started, say)
    if search.best is None:
        raise _missed(search)
    scope = f"all counts of {len(columns)} replica templates under one scheduler setting" + (
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


def _missed(search: MixedSearch) -> InfeasibleError:
    if not limited(search.question.slo):
        return overloaded(search.question)
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
    candidates = [winner if candidate is best else candidate for candidate in _shown(search, certificate.status)]
    if search.misplaced:
        refusals.add("node-boundary", "a combination whose TP groups fit in no node", search.misplaced)
    legal = search.master.combinations() - search.misplaced
    provenance = {family: kind for spec in specs for family, kind in spec.provenance.items()}
    return Answer(
        question=question,
        best=winner,
        result=run.result,
        intervals=intervals,
        candidates=tuple(candidates),
        illegal=dict(refusals.counts),
        legal=legal,
        simulated=search.simulations,
        pruned=legal - search.simulations,
        gap=certificate.gap,
        provenance=provenance,
        wall_s=time.monotonic() - started,
    )


def _shown(search: MixedSearch, status: str) -> list[Candidate]:
    """What was looked at one by one, and one replica of each other template. Combinations are too many to list."""
    reason = "bound cannot beat the best plan" if status == "OPTIMAL" else "not tried: the budget ran out"
    for index in range(len(search.columns)):
        counts = tuple(int(place == index) for place in range(len(search.columns)))
        if counts not in search.examined:
            search.prune(counts, search.bounds.cheap(index), reason)
    return list(search.examined.values())
