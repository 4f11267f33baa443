"""The repeating layer: brute force, never worse than the baselines, proofs, the checker, and what is simulated."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.planners.check import CheckError
from simtool.planners.schedule.configurations import (
    configuration_bound,
    configurations,
    energy_bound,
    listed_configurations,
)
from simtool.planners.schedule.kernels import KernelLayer
from simtool.planners.schedule.layer import LayerProblem, Mode, ModuloSchedule, Operation, Piece
from simtool.planners.schedule.overlap import layer_ticks, plan_overlap
from simtool.planners.schedule.placing import no_overlap
from simtool.planners.schedule.progress import Effort
from simtool.planners.schedule.unroll import mode_parts, simulated_period_s, unrolled
from simtool.planners.schedule.verify import check_modulo_schedule
from simtool.simulator.overlap.kernel import Kernel
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import Resource

RESOURCES = tuple(Resource(name=name, rate=rate) for name, rate in (("sm", 100.0), ("hbm", 1.0), ("nvlink", 1.0)))
QUICK = Effort(limit=0.05)


def price(rows):
    """rows: (kind, seconds that do not shrink with the share, seconds that do)."""

    def of(share):
        kernels = []
        for place, (kind, fixed, variable) in enumerate(rows):
            seconds = fixed + variable * share
            work = {
                "compute": {"sm": 100 * seconds, "hbm": fixed},
                "memory": {"sm": 50 * seconds, "hbm": 0.9 * seconds},
                "network": {"nvlink": seconds},
            }[kind]
            family = "collective" if kind == "network" else "gemm"
            kernels.append(Kernel(name=f"{kind} {place}", family=family, seconds=seconds, latency_s=0.0, work=work))
        return kernels

    return of


def layer_of(rows, **choices):
    """Every kernel an operation of its own; a collective keeps a fifth of the device."""
    choices = {"shares": (0.2, 0.8, 1.0), "grain": 0.0, **choices}
    return KernelLayer(price=price(rows), resources=RESOURCES, comm_sms=20, **choices)


def chain(rows, counts):
    layer = layer_of(rows)
    return [layer.problem([1 / n] * n) for n in counts]


COMPUTE_AND_NETWORK = [("compute", 0.1, 4.0), ("network", 0.1, 3.0), ("compute", 0.1, 5.0), ("network", 0.1, 4.0)]


@st.composite
def layers(draw):
    rows = draw(
        st.lists(
            st.tuples(st.sampled_from(["compute", "memory", "network"]), st.floats(0.01, 2.0), st.floats(0.0, 9.0)),
            min_size=1,
            max_size=4,
        )
    )
    edges = tuple((i, j) for j in range(1, len(rows)) for i in range(j) if draw(st.booleans()))
    shares = {1: [1.0], 2: draw(st.sampled_from([[0.5, 0.5], [0.25, 0.75]]))}
    layer = layer_of(rows, shares=(0.4, 0.6, 1.0))
    return [replace(layer.problem(shares[n]), precedences=edges) for n in (1, 2)]


@settings(max_examples=10, deadline=None)
@given(layers())
def test_laws(problems):
    """Bound <= found <= every baseline; more nano-batches never lose; schedules hold, and run as planned."""
    answer = plan_overlap(problems, QUICK)
    for problem, plan in zip(problems, answer.plans, strict=True):
        check_modulo_schedule(problem, plan.schedule)
        check_modulo_schedule(problem, no_overlap(problem))
        period = plan.schedule.period_s
        assert plan.certificate.bound <= period
        assert period <= min(plan.fixed_s, plan.listed_s, answer.none_s) * (1 + 1e-9)
        assert all(row.bound <= plan.progress[-1].objective * (1 + 1e-9) for row in plan.progress)
        assert simulated_period_s(problem, plan.schedule) <= period * (1 + 1e-6)
    best = answer.schedule.period_s
    assert best == min(plan.schedule.period_s for plan in answer.plans)
    assert answer.certificate.bound <= best <= answer.none_s
    assert answer.plans[1].schedule.period_s <= answer.plans[0].schedule.period_s * (1 + 2e-3)


def least_whole_period(problem):
    """Least whole period over all cuts, modes and whole starts, durations being whole."""
    serial = round(no_overlap(problem).period_s)
    for period in range(1, serial + 1):
        for cuts in product(*(range(len(op.cuts)) for op in problem.operations)):
            pieces = [(n, op.cuts[c], i) for n, (op, c) in enumerate(zip(problem.operations, cuts, strict=True))
                      for i in range(len(op.cuts[c]))]  # fmt: skip
            for modes in product(*(range(len(cut[i].modes)) for _, cut, i in pieces)):
                chosen = [(n, cut[i].batches, cut[i].modes[m]) for (n, cut, i), m in zip(pieces, modes, strict=True)]
                if any(_holds(problem, chosen, starts, period) for starts in _starts(chosen, period)):
                    return period
    return serial


def _starts(chosen, period):
    ranges = [range(period) if n == 0 else range(2 * period) for n, _, _ in chosen]
    return product(range(1), *ranges[1:])


def _holds(problem, chosen, starts, period):
    begin = {(n, b): s for (n, batches, _), s in zip(chosen, starts, strict=True) for b in batches}
    end = {(n, b): s + round(m.seconds) for (n, batches, m), s in zip(chosen, starts, strict=True) for b in batches}
    for batch in range(problem.batches):
        if any(begin[j, batch] < end[i, batch] for i, j in problem.precedences):
            return False
        if any(end[n, batch] > begin[0, batch] + period or begin[n, batch] < begin[0, batch] for n, _, _ in chosen):
            return False
    used = {name: np.zeros(period) for name in problem.resources}
    for (_, _, mode), start in zip(chosen, starts, strict=True):
        for tick in range(start, start + round(mode.seconds)):
            for name, amount in mode.uses:
                used[name][tick % period] += amount
    return all(row.max() <= 1000 for row in used.values())


def mode(seconds, **uses):
    return Mode(seconds=float(seconds), uses=tuple(sorted(uses.items())))


def operation(name, whole, split):
    return Operation(
        name=name,
        cuts=(
            (Piece(batches=(0, 1), modes=whole),),
            tuple(Piece(batches=(b,), modes=split) for b in range(2)),
        ),
    )


@pytest.mark.parametrize("case", range(6))
def test_brute_force(case):
    rng = np.random.default_rng(case)
    names = ("sm", "net")

    def modes(longest):
        full = int(rng.integers(1, longest + 1))
        uses = {names[int(rng.integers(0, 2))]: int(rng.choice([500, 1000]))}
        slow = {name: amount // 2 for name, amount in uses.items()}
        return (mode(full, **uses), mode(full + 1, **slow))

    problem = LayerProblem(
        operations=tuple(operation(str(n), modes(3), modes(2)) for n in range(2)), precedences=((0, 1),), batches=2
    )
    least = least_whole_period(problem)
    ticks = layer_ticks([problem])
    assert ticks.bound_s(configuration_bound(problem, listed_configurations(problem), ticks, QUICK)) <= least
    plan = plan_overlap([problem], Effort(limit=1.0)).plans[0]
    assert least - 1 < plan.schedule.period_s <= least * (1 + 1e-9)
    assert plan.certificate.status == "OPTIMAL"
    assert plan.certificate.bound >= plan.schedule.period_s * 0.99
    check_modulo_schedule(problem, plan.schedule)


def test_overlap_wins_where_two_resources_are_busy():
    problems = chain(COMPUTE_AND_NETWORK, (1, 2))
    answer = plan_overlap(problems, Effort(limit=0.5))
    assert answer.overlaps
    assert answer.place == 1
    assert answer.schedule.period_s < 0.9 * answer.none_s
    gaps = [row.gap for row in answer.plans[1].progress]
    assert gaps[-1] < gaps[0]
    assert all(second <= first + 1e-9 for first, second in pairwise(gaps))


def test_do_not_overlap_is_an_answer():
    """Weights that are read again by every nano-batch, and little else: cutting and sharing only lose."""
    answer = plan_overlap(chain([("compute", 5.0, 0.1), ("network", 0.5, 0.0), ("compute", 6.0, 0.1)], (1, 2)), QUICK)
    assert not answer.overlaps
    assert answer.schedule.period_s == answer.none_s
    assert answer.certificate.status == "OPTIMAL"


def test_repeats_exactly():
    problems = chain(COMPUTE_AND_NETWORK, (2,))
    first, second = (plan_overlap(problems, QUICK) for _ in range(2))
    assert first.schedule == second.schedule
    assert first.certificate.bound == second.certificate.bound


def test_four_nano_batches_start_from_two():
    problems = chain(COMPUTE_AND_NETWORK, (2, 4))
    answer = plan_overlap(problems, Effort(limit=0.05))
    assert answer.plans[1].schedule.period_s <= answer.plans[0].schedule.period_s * (1 + 2e-3)


def test_unrolled_runs_as_planned():
    problem = chain(COMPUTE_AND_NETWORK, (2,))[0]
    schedule = plan_overlap([problem], Effort(limit=0.3)).schedule
    graph = unrolled(problem, schedule, 40, mode_parts(problem, schedule))
    timeline = simulate_tasks(graph)
    assert {task.stream for task in graph.tasks} == {"stream 0", "stream 1"}
    assert timeline.makespan_s <= 39 * schedule.period_s + schedule.span_s(problem) * (1 + 1e-9)
    assert simulated_period_s(problem, schedule) == pytest.approx(schedule.period_s, rel=1e-6)


def broken(schedule, place, **change):
    placed = [replace(p, **change) if n == place else p for n, p in enumerate(schedule.placed)]
    return replace(schedule, placed=tuple(placed))


def test_checker_catches():
    problem = chain(COMPUTE_AND_NETWORK, (2,))[0]
    schedule = plan_overlap([problem], QUICK).schedule
    serial = no_overlap(problem)
    check_modulo_schedule(problem, schedule)
    for wrong, rule in (
        (replace(schedule, period_s=0.99 * schedule.period_s), "resource|layer|order"),
        (replace(serial, period_s=0.5 * serial.period_s), "layer"),
        (broken(serial, 1, start_s=0.0), "order"),
        (broken(serial, 3, start_s=serial.period_s), "layer"),
        (replace(schedule, placed=schedule.placed[:-1]), "served|cut"),
    ):
        with pytest.raises(CheckError, match=rule):
            check_modulo_schedule(problem, wrong)


def test_checker_catches_a_full_resource_across_the_period():
    modes = (mode(2, sm=600),)
    problem = LayerProblem(
        operations=(Operation(name="a", cuts=(tuple(Piece(batches=(b,), modes=modes) for b in range(2)),)),),
        precedences=(),
        batches=2,
    )
    starts = [(0, 0.0), (1, 2.0)]
    placed = plan_overlap([problem], QUICK).schedule.placed
    both = tuple(replace(placed[0], piece=piece, start_s=start) for piece, start in starts)
    check_modulo_schedule(problem, ModuloSchedule(period_s=4.0, placed=both))
    with pytest.raises(CheckError, match="resource"):
        check_modulo_schedule(problem, ModuloSchedule(period_s=3.0, placed=both))


@pytest.mark.parametrize(
    ("problem", "rule"),
    [
        (LayerProblem(operations=(), precedences=()), "needs operations"),
        (chain(COMPUTE_AND_NETWORK, (1,))[0].__class__(operations=(), precedences=(), batches=0), "nano-batch"),
        (replace(chain(COMPUTE_AND_NETWORK, (1,))[0], precedences=((1, 2), (2, 1))), "wait for each other"),
        (replace(chain(COMPUTE_AND_NETWORK, (1,))[0], precedences=((1, 0),)), "0 is the first"),
        (replace(chain(COMPUTE_AND_NETWORK, (1,))[0], batches=2), "once each"),
        (
            LayerProblem(operations=(operation("a", (mode(1, sm=1001),), (mode(1),)),), precedences=(), batches=2),
            "1000",
        ),
        (LayerProblem(operations=(operation("a", (mode(0),), (mode(1),)),), precedences=(), batches=2), "more than 0"),
    ],
)
def test_refused(problem, rule):
    with pytest.raises(InputError, match=rule):
        plan_overlap([problem], QUICK)


def test_problems_must_rise():
    with pytest.raises(InputError, match="rising"):
        plan_overlap(chain(COMPUTE_AND_NETWORK, (2, 1)), QUICK)


def test_configurations_see_what_no_resource_shows():
    """Three operations of two nano-batches, no two of which fit together: 2 x 3 s, where each resource has 3.6 s."""
    modes = (mode(1, sm=600),)
    split = Operation(name="a", cuts=(tuple(Piece(batches=(b,), modes=modes) for b in range(2)),))
    problem = LayerProblem(operations=(split,) * 3, precedences=((0, 1), (1, 2)), batches=2)
    ticks = layer_ticks([problem])
    assert configuration_bound(problem, listed_configurations(problem), ticks, QUICK) * ticks.seconds == pytest.approx(
        6.0, rel=1e-3
    )
    known = configurations(problem, alike=True, most=100)
    assert sorted(known.sets) == [(0,), (1,), (2,)]
    assert configurations(problem, alike=True, most=2) is None
    assert len(configurations(problem, alike=False, most=100).sets) == 6


def test_counting_alike_nano_batches_together_only_relaxes_the_bound():
    """One nano-batch a hair longer, so that they may not swap names: the bound by name is at least as high."""
    problem = chain(COMPUTE_AND_NETWORK, (2,))[0]
    ticks = layer_ticks([problem])
    first = problem.operations[0].cuts[0]
    longer = tuple(replace(one, seconds=one.seconds * (1 + 1e-9)) for one in first[1].modes)
    cuts = ((first[0], replace(first[1], modes=longer)), *problem.operations[0].cuts[1:])
    named = replace(problem, operations=(replace(problem.operations[0], cuts=cuts), *problem.operations[1:]))
    together, apart = (
        configuration_bound(one, listed_configurations(one), ticks, Effort(limit=5.0)) for one in (problem, named)
    )
    assert 0 < energy_bound(problem, ticks) <= together <= apart * (1 + 1e-3)
    least = plan_overlap([problem], QUICK).schedule.period_s
    assert ticks.bound_s(apart) <= least * (1 + 1e-9)
