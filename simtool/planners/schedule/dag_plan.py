"""The best schedule of a DAG on unlike processors, by CP-SAT, from HEFT on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simtool.planners.certificate import Certificate
from simtool.planners.schedule.dag import DagProblem, check_dag, earliest, remaining
from simtool.planners.schedule.heft import Placed, heft, makespan
from simtool.planners.schedule.progress import Effort, Progress, Watch, watched_solve
from simtool.planners.schedule.ticks import Ticks, make_ticks

_RESOLUTION = 100_000  # ticks in the baseline's makespan
_SCOPE = "makespan of all assignments and orders, tasks uninterrupted, transfers beside tasks and without contention"


@dataclass(frozen=True, slots=True, kw_only=True)
class DagSchedule:
    """The schedule, the baseline that it started from, the proof, and what was known when."""

    best: Placed
    baseline: Placed
    certificate: Certificate
    progress: tuple[Progress, ...]


def schedule_dag(problem: DagProblem, effort: Effort | None = None) -> DagSchedule:
    """The least makespan found, never above HEFT's. InputError: no DAG.

    The bound holds for the true durations: ticks are rounded up, and what that can add is taken off.
    """
    order, effort = check_dag(problem), effort or Effort()
    baseline = heft(problem)
    ticks = _ticks(problem, baseline)
    least = max((min(row) for row in remaining(problem, order)), default=0.0)
    model, start, chosen = _model(problem, order, baseline, ticks)
    watch = Watch(objective=float(ticks.up(baseline.makespan_s)), bound=least / ticks.seconds)
    solver, status = watched_solve(model, watch, effort)
    best = baseline
    if status in ("OPTIMAL", "FEASIBLE"):
        processor = [next(p for p, x in row.items() if solver.value(x)) for row in chosen]
        found = retime(problem, processor, [solver.value(s) for s in start])
        best = min((found, baseline), key=lambda placed: placed.makespan_s)
    bound = min(max(ticks.bound_s(watch.bound), least), best.makespan_s)
    certificate = Certificate(
        status="OPTIMAL" if status == "OPTIMAL" else "FEASIBLE",
        objective=best.makespan_s,
        bound=bound,
        gap=(best.makespan_s - bound) / best.makespan_s if best.makespan_s > 0 else 0.0,
        seconds=watch.seconds,
        scope=_SCOPE,
        workers=effort.workers,
        deterministic_limit=effort.limit,
    )
    progress = watch.history(ticks)
    return DagSchedule(best=best, baseline=baseline, certificate=certificate, progress=progress)


def _ticks(problem: DagProblem, baseline: Placed) -> Ticks:
    finite = [problem.durations[task][p] for task in range(len(problem.durations)) for p in problem.able(task)]
    pairs = {problem.apart(p, q) for p in range(problem.processors) for q in range(problem.processors)}
    sent = [edge.seconds * far for edge in problem.edges for far in pairs]
    return make_ticks([*finite, *sent], baseline.makespan_s, _RESOLUTION, 2 * len(problem.durations))


def _model(
    problem: DagProblem, order: list[int], baseline: Placed, ticks: Ticks
) -> tuple[Any, list[Any], list[dict[int, Any]]]:
    """(model, start of each task, task → processor → chosen)."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    high = ticks.up(baseline.makespan_s) + ticks.slack
    end = model.new_int_var(0, high, "makespan")
    chosen: list[dict[int, Any]] = [
        {p: model.new_bool_var(f"x{task}_{p}") for p in problem.able(task)} for task in range(len(order))
    ]
    start = [model.new_int_var(0, high, f"s{task}") for task in range(len(order))]
    for row in chosen:
        model.add_exactly_one(row.values())
    for p in range(problem.processors):
        mine = [task for task in range(len(order)) if p in chosen[task]]
        model.add_no_overlap(
            model.new_optional_fixed_size_interval_var(
                start[task], ticks.up(problem.durations[task][p]), chosen[task][p], f"i{task}_{p}"
            )
            for task in mine
        )
        model.add(sum(ticks.up(problem.durations[task][p]) * chosen[task][p] for task in mine) <= end)
    _edges(model, problem, start, chosen, ticks)
    _ends(model, problem, order, start, chosen, end, ticks)
    for task, row in enumerate(chosen):
        model.add_hint(start[task], ticks.up(baseline.start_s[task]))
        for p, x in row.items():
            model.add_hint(x, p == baseline.processor[task])
    model.minimize(end)
    return model, start, chosen


def _edges(model: Any, problem: DagProblem, start: list[Any], chosen: list[dict[int, Any]], ticks: Ticks) -> None:
    """Where the first task runs on p, its successor waits for the way from p."""
    for edge in problem.edges:
        for p, here in chosen[edge.before].items():
            way = {q: ticks.up(edge.seconds * problem.apart(p, q)) for q in chosen[edge.after]}
            ready = start[edge.before] + ticks.up(problem.durations[edge.before][p])
            sent = sum(way[q] * there for q, there in chosen[edge.after].items())
            model.add(start[edge.after] >= ready + sent).only_enforce_if(here)


def _ends(
    model: Any,
    problem: DagProblem,
    order: list[int],
    start: list[Any],
    chosen: list[dict[int, Any]],
    end: Any,
    ticks: Ticks,
) -> None:
    """What must pass before and after each task, by processor: implied, but the solver's relaxation does not see it."""
    heads, tails = earliest(problem, order), remaining(problem, order)
    for task, row in enumerate(chosen):
        model.add(start[task] >= sum(ticks.down(heads[task][p]) * x for p, x in row.items()))
        least = {p: ticks.down(tails[task][p]) for p in row}
        model.add(end >= start[task] + sum(least[p] * x for p, x in row.items()))
        for p, x in row.items():
            model.add(end >= start[task] + ticks.up(problem.durations[task][p])).only_enforce_if(x)


def retime(problem: DagProblem, processor: list[int], position: list[int]) -> Placed:
    """Every task as early as its predecessors and the tasks before it on its processor allow, by true durations."""
    free, start = [0.0] * problem.processors, [0.0] * len(processor)
    into = problem.before()
    rank = {task: place for place, task in enumerate(check_dag(problem))}
    for task in sorted(rank, key=lambda task: (position[task], rank[task])):
        p, ready = processor[task], free[processor[task]]
        for edge in into[task]:
            far = edge.seconds * problem.apart(processor[edge.before], p)
            ready = max(ready, start[edge.before] + problem.durations[edge.before][processor[edge.before]] + far)
        start[task] = ready
        free[p] = ready + problem.durations[task][p]
    return Placed(processor=tuple(processor), start_s=tuple(start), makespan_s=makespan(problem, processor, start))
