"""Overlap planner: nano-batches, cuts, modes and starts with the least period of a repeating layer, with the proof."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from simtool.errors import InputError
from simtool.planners.certificate import Certificate
from simtool.planners.schedule.branches import BETTER, Branches, BranchWatch, cuts_of, improved, search_branches
from simtool.planners.schedule.configurations import (
    configuration_bound,
    cut_bounds,
    energy_bound,
    listed_configurations,
)
from simtool.planners.schedule.layer import LayerProblem, ModuloSchedule, check_layer
from simtool.planners.schedule.modulo_model import canonical, hint, modulo_model, read
from simtool.planners.schedule.placing import as_schedule, least_period, no_overlap
from simtool.planners.schedule.progress import Effort, Progress, Watch, watched_solve
from simtool.planners.schedule.retime import exact_times
from simtool.planners.schedule.rules import Moves, fixed_chunks, follow, improve, list_schedule
from simtool.planners.schedule.ticks import Ticks, tick_s

_RESOLUTION = 10_000  # ticks in the longest layer that can be meant: every operation whole, or cut most finely
_FIRST_BOUND = 0.1  # share of the limit for the bound of configurations; most layers need a tenth of that
# Shares of what then is left: better schedules, cut alike and in other ways, then the proof.
_SAME_CUTS, _ANY_CUTS, _PROOF = 0.1, 0.15, 0.75
# CP-SAT's searches beside each other: better schedules of any cuts, proofs. Chosen on layers of
# benchmarks/planning/overlap_plans.py; CP-SAT's own choice for two workers left twice the gap.
_ANY, _PROVING = ("quick_restart",), ("objective_lb_search", "lb_tree_search")
_ONE_WORKER = ("max_lp",)
_STARTS = 0.1  # share of wall_s after which the local search ends
_MOVES, _MOST_MOVES = 50, 1000  # of the local search, a deterministic second of the limit and in all (a few seconds)
_ENDS = 0.1  # share of the limit for the second search, of the shortest ends at the period found


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPolicy:
    """Two-batch overlap as it is configured by hand: what uses a network gets `share` thousandths of the device."""

    network: tuple[str, ...] = ("nvlink", "nic")
    share: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesPlan:
    """The best schedule for one number of nano-batches. fixed_s, listed_s: periods of the baselines, inf: none."""

    batches: int
    schedule: ModuloSchedule
    fixed_s: float
    listed_s: float
    certificate: Certificate
    progress: tuple[Progress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapPlan:
    """The best over all numbers of nano-batches that were asked for.

    place: of the problem that `schedule` solves. none_s: one operation after another, not cut. certificate: over all
    problems. overlaps: whether anything runs beside anything else; "do not" is an answer.
    """

    place: int
    schedule: ModuloSchedule
    none_s: float
    overlaps: bool
    plans: tuple[BatchesPlan, ...]
    certificate: Certificate


def plan_overlap(
    problems: Sequence[LayerProblem], effort: Effort | None = None, policy: FixedPolicy | None = None
) -> OverlapPlan:
    """Solve each problem (numbers of nano-batches, rising) from its list schedules and the solution of the one before.

    effort: for each problem. Never worse than the baselines of any of them. InputError for problems that are none.
    """
    if not problems or [p.batches for p in problems] != sorted({p.batches for p in problems}):
        raise InputError([p.batches for p in problems], "give problems with rising numbers of nano-batches")
    for problem in problems:
        check_layer(problem)
    plans: list[BatchesPlan] = []
    known: list[tuple[LayerProblem, ModuloSchedule]] = []
    ticks = layer_ticks(problems)
    for problem in problems:
        plan, rounded = _plan(problem, ticks, known, effort or Effort(), policy or FixedPolicy())
        plans.append(plan)
        known.append((problem, rounded))
    place = min(range(len(plans)), key=lambda n: plans[n].schedule.period_s)
    best, bound = plans[place], min(plan.certificate.bound for plan in plans)
    certificate = replace(
        best.certificate,
        status="OPTIMAL" if all(plan.certificate.status == "OPTIMAL" for plan in plans) else "FEASIBLE",
        bound=bound,
        gap=max(0.0, best.schedule.period_s - bound) / best.schedule.period_s,
        seconds=sum(plan.certificate.seconds for plan in plans),
        scope=f"{best.certificate.scope}; {', '.join(str(problem.batches) for problem in problems)} nano-batches",
    )
    return OverlapPlan(
        place=place,
        schedule=best.schedule,
        none_s=min(no_overlap(problem).period_s for problem in problems),
        overlaps=runs_together(problems[place], best.schedule),
        plans=tuple(plans),
        certificate=certificate,
    )


def layer_ticks(problems: Sequence[LayerProblem]) -> Ticks:
    """Ticks that suit all problems.

    On a circuit of pieces that follow each other, all of the finest cuts at most, each is rounded by less than a tick,
    and the period by less than one more (whole durations may still have a broken best period).
    """
    longest = max(
        sum(
            max(sum(piece.modes[piece.fastest].seconds for piece in cut) for cut in operation.cuts)
            for operation in problem.operations
        )
        for problem in problems
    )
    most = max(sum(max(len(cut) for cut in operation.cuts) for operation in problem.operations) for problem in problems)
    return Ticks(seconds=tick_s(longest, _RESOLUTION), slack=most + 1)


def _plan(
    problem: LayerProblem,
    ticks: Ticks,
    known: Sequence[tuple[LayerProblem, ModuloSchedule]],
    effort: Effort,
    policy: FixedPolicy,
) -> tuple[BatchesPlan, ModuloSchedule]:
    """The plan, and its schedule in ticks."""
    watch = Watch(objective=math.inf, bound=energy_bound(problem, ticks))
    fixed, listed, first = _starts(problem, ticks, known, effort, policy)
    watch.found(round(first.period_s / ticks.seconds))
    status, rounded = _search(problem, first, ticks, watch, effort)
    rounded = _shorten_ends(problem, rounded, ticks, effort.part(_ENDS))
    fixed, listed, best = (exact_times(problem, found, ticks) if found else None for found in (fixed, listed, rounded))
    exact = [found for found in (no_overlap(problem), fixed, listed, best) if found]
    best = min(exact, key=lambda found: found.period_s)
    bound = min(ticks.bound_s(watch.bound), best.period_s)
    certificate = Certificate(
        status="OPTIMAL" if status == "OPTIMAL" else "FEASIBLE",
        objective=best.period_s,
        bound=bound,
        gap=(best.period_s - bound) / best.period_s,
        seconds=watch.seconds,
        scope="period of all schedules that repeat every layer, of the modes and cuts given",
        workers=effort.workers,
        deterministic_limit=effort.limit,
    )
    plan = BatchesPlan(
        batches=problem.batches,
        schedule=best,
        fixed_s=fixed.period_s if fixed else float("inf"),
        listed_s=listed.period_s if listed else float("inf"),
        certificate=certificate,
        progress=watch.history(ticks),
    )
    return plan, rounded


def _starts(
    problem: LayerProblem,
    ticks: Ticks,
    known: Sequence[tuple[LayerProblem, ModuloSchedule]],
    effort: Effort,
    policy: FixedPolicy,
) -> tuple[ModuloSchedule | None, ModuloSchedule | None, ModuloSchedule]:
    """(fixed chunks, list schedule, best of these and of what follows from fewer nano-batches), all in ticks."""
    fixed = as_schedule(fixed_chunks(problem, ticks, policy.network, policy.share), ticks)
    found, rule = list_schedule(problem, ticks)
    listed = as_schedule(found, ticks)
    moves = Moves(most=min(_MOST_MOVES, round(_MOVES * effort.limit)), wall_s=_STARTS * effort.wall_s)
    changed = [improve(problem, ticks, found, rule, moves)[0]]
    for other, schedule in known[-1:]:
        rule = follow(problem, other, schedule, rule)
        changed.append(improve(problem, ticks, least_period(problem, ticks, rule), rule, moves)[0])
    better = [as_schedule(one, ticks) for one in changed]
    carried = [embed(problem, other, schedule) for other, schedule in known]
    starts = [found for found in (no_overlap(problem, ticks), fixed, listed, *carried, *better) if found]
    first = min(starts, key=lambda found: found.period_s)
    return fixed, listed, first


def _search(
    problem: LayerProblem,
    schedule: ModuloSchedule,
    ticks: Ticks,
    watch: Watch,
    effort: Effort,
) -> tuple[str, ModuloSchedule]:
    """(status, schedule in ticks of the least period found), from a schedule in ticks."""
    known = listed_configurations(problem)
    whole = effort.part(1.0 - _ENDS)
    watch.proven(configuration_bound(problem, known, ticks, effort.part(_FIRST_BOUND)))
    lower = {cuts: max(bound, watch.bound) for cuts, bound in cut_bounds(problem, known, ticks).items()}
    effort = whole.after(watch.seconds)
    if not lower:
        if effort.workers > 1:
            _, schedule = _solve(problem, schedule, ticks, watch, effort.part(_SAME_CUTS + _ANY_CUTS), _ANY)
        return _solve(problem, schedule, ticks, watch, effort.part(_PROOF))
    branches = Branches(watch=watch, lower=lower)
    if effort.workers > 1 and branches.weakest() is not None:
        cuts = cuts_of(schedule)
        if cuts in branches.lower:
            own = BranchWatch(branches=branches, cuts=cuts)
            better, _ = improved(problem, schedule, ticks, cuts, own, effort.part(_SAME_CUTS), BETTER)
            schedule = better or schedule
        _, schedule = _solve(problem, schedule, ticks, watch, effort.part(_ANY_CUTS), _ANY)
    searches = _PROVING if effort.workers > 1 else _ONE_WORKER
    schedule = search_branches(problem, schedule, ticks, branches, effort.part(_PROOF), searches)
    return "OPTIMAL" if branches.weakest() is None else "FEASIBLE", schedule


def _solve(
    problem: LayerProblem,
    schedule: ModuloSchedule,
    ticks: Ticks,
    watch: Watch,
    effort: Effort,
    searches: tuple[str, ...] = (),
) -> tuple[str, ModuloSchedule]:
    """(status, schedule), cut in any way. searches: `watched_solve`'s, () for those of a proof."""
    high = round(schedule.period_s / ticks.seconds)
    found = modulo_model(problem, ticks, max(1, math.ceil(watch.bound)), high)
    hint(found, problem, canonical(problem, schedule), ticks)
    usual = _PROVING if effort.workers > 1 else _ONE_WORKER
    solver, status = watched_solve(found.model, watch, effort, searches or usual)
    if status in ("OPTIMAL", "FEASIBLE"):
        schedule = read(found, problem, solver, ticks)
    return status, schedule


def _shorten_ends(problem: LayerProblem, schedule: ModuloSchedule, ticks: Ticks, effort: Effort) -> ModuloSchedule:
    """At the same period, the layer that ends soonest: what the first and the last layer add to the others' periods."""
    period = round(schedule.period_s / ticks.seconds)
    found = modulo_model(problem, ticks, period, period)
    span = found.model.new_int_var(0, 2 * period, "span")
    for end in found.end.values():
        found.model.add(end <= span)
    found.model.minimize(span)
    hint(found, problem, canonical(problem, schedule), ticks)
    watch = Watch(objective=2.0 * period, bound=0.0)
    solver, status = watched_solve(found.model, watch, effort)
    if status not in ("OPTIMAL", "FEASIBLE"):
        return schedule
    shorter = read(found, problem, solver, ticks)
    return min((shorter, schedule), key=lambda one: one.span_s(problem))


def embed(problem: LayerProblem, other: LayerProblem, schedule: ModuloSchedule) -> ModuloSchedule | None:
    """A schedule for fewer nano-batches as one for more, each of which is a part of one of the fewer; None: it is not.

    It is where every piece is also a piece of the larger problem, with the same modes.
    """
    if problem.batches % other.batches or len(problem.operations) != len(other.operations):
        return None
    times, placed = problem.batches // other.batches, []
    for old in schedule.placed:
        before = other.operations[old.operation].cuts[old.cut]
        wanted = [tuple(range(piece.batches[0] * times, (piece.batches[-1] + 1) * times)) for piece in before]
        for cut, pieces in enumerate(problem.operations[old.operation].cuts):
            if [piece.batches for piece in pieces] == wanted and pieces[old.piece].modes == before[old.piece].modes:
                placed.append(replace(old, cut=cut))
                break
        else:
            return None
    return replace(schedule, placed=tuple(placed))


def runs_together(problem: LayerProblem, schedule: ModuloSchedule) -> bool:
    """Whether two pieces ever run at the same time."""
    spans = sorted(
        (placed.start_s + shift * schedule.period_s, schedule.end_s(problem, placed) + shift * schedule.period_s)
        for placed in schedule.placed
        for shift in (0, 1)
    )
    close, reach = 1e-9 * schedule.period_s, 0.0
    for begin, end in spans:
        if begin < reach - close:
            return True
        reach = max(reach, end)
    return False
