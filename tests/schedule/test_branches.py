"""Ways to cut a layer: each one's bound, the layer begun at a barrier, and the best of all of them."""

import math
from dataclasses import replace
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.planners.schedule.branches import Branches, BranchWatch, cut_as, cuts_of, improved, search_branches
from simtool.planners.schedule.configurations import cut_bounds, listed_configurations
from simtool.planners.schedule.layer import LayerProblem
from simtool.planners.schedule.modulo_model import modulo_model, read
from simtool.planners.schedule.overlap import plan_overlap
from simtool.planners.schedule.placing import as_schedule, least_period, no_overlap
from simtool.planners.schedule.progress import Effort, Watch, watched_solve
from simtool.planners.schedule.rotation import rotated
from simtool.planners.schedule.rules import list_schedule
from simtool.planners.schedule.ticks import Ticks
from simtool.planners.schedule.verify import check_modulo_schedule
from tests.schedule.test_overlap import mode, operation

TICKS = Ticks(seconds=1.0, slack=0)
ENOUGH = Effort(limit=2.0)


@st.composite
def whole_layers(draw):
    """Three or four operations of two nano-batches on two resources, durations whole, in a chain or a diamond."""
    count = draw(st.integers(3, 4))
    uses = st.sampled_from([{"sm": 1000}, {"sm": 600}, {"nic": 1000}, {"nic": 500, "sm": 400}])
    operations = []
    for place in range(count):
        used, split = draw(uses), draw(st.integers(1, 4))
        whole = draw(st.integers(split, 2 * split))
        operations.append(operation(str(place), (mode(whole, **used),), (mode(split, **used),)))
    chain = tuple((place, place + 1) for place in range(count - 1))
    diamond = ((0, 1), (0, 2), *(((1, 3), (2, 3)) if count == 4 else ()))
    return LayerProblem(operations=tuple(operations), precedences=draw(st.sampled_from([chain, diamond])), batches=2)


def optimum(problem):
    """CP-SAT's, of the cyclic model of the layer as it stands."""
    high = round(no_overlap(problem, TICKS).period_s)
    found = modulo_model(problem, TICKS, 1, high)
    solver, status = watched_solve(found.model, Watch(objective=2.0 * high, bound=0.0), ENOUGH)
    assert status == "OPTIMAL"
    return read(found, problem, solver, TICKS)


@settings(max_examples=6, deadline=None)
@given(whole_layers())
def test_every_way_to_cut_has_a_bound_and_the_best_way_is_found(problem):
    lower = cut_bounds(problem, listed_configurations(problem), TICKS)
    ways = list(product(*(range(len(operation.cuts)) for operation in problem.operations)))
    periods = {cuts: optimum(cut_as(problem, cuts)).period_s for cuts in ways}
    assert all(lower[cuts] <= periods[cuts] for cuts in ways)
    first = as_schedule(list_schedule(problem, TICKS)[0], TICKS)
    branches = Branches(watch=Watch(objective=first.period_s, bound=0.0), lower=lower)
    best = search_branches(problem, first, TICKS, branches, ENOUGH, ("max_lp",))
    check_modulo_schedule(problem, best)
    assert branches.weakest() is None
    assert best.period_s == branches.watch.bound == min(periods.values()) == optimum(problem).period_s


@settings(max_examples=15, deadline=None)
@given(whole_layers(), st.data())
def test_a_layer_begun_at_a_barrier_has_the_same_schedules(problem, data):
    """Begun at an operation in one piece the layer has the same least period, and each schedule is one of both."""
    cuts = tuple(data.draw(st.integers(0, 1)) for _ in problem.operations)
    own = cut_as(problem, cuts)
    turned = rotated(own)
    if turned is None:
        return
    best, other = optimum(own), optimum(turned.problem)
    assert best.period_s == other.period_s
    check_modulo_schedule(own, turned.back(other))
    check_modulo_schedule(turned.problem, turned.forth(best))


def test_an_operation_beside_others_is_no_barrier():
    one, two = (mode(2, sm=1000),), (mode(1, sm=1000),)
    diamond = LayerProblem(
        operations=tuple(operation(str(place), one, two) for place in range(4)),
        precedences=((0, 1), (0, 2), (1, 3), (2, 3)),
        batches=2,
    )
    assert rotated(cut_as(diamond, (1, 0, 0, 1))) is None
    turned = rotated(cut_as(diamond, (1, 0, 1, 0)))
    assert turned.places == (3, 0, 1, 2)
    loose = replace(diamond, precedences=((1, 3), (2, 3)))  # 1 and 2 do not wait for 0
    assert rotated(cut_as(loose, (1, 1, 1, 0))) is None


def test_a_schedule_is_improved_from_where_it_is():
    """The start cannot be lost: with hardly any effort the result is no worse, and is cut as asked."""
    one, two = (mode(6, sm=1000),), (mode(3, sm=1000),)
    net, half = (mode(6, nic=1000),), (mode(3, nic=1000),)
    problem = LayerProblem(
        operations=(operation("a", one, two), operation("b", net, half)), precedences=((0, 1),), batches=2
    )
    found, rule = list_schedule(problem, TICKS)
    rule = replace(rule, cuts=(1, 1))
    first = as_schedule(least_period(problem, TICKS, rule), TICKS)
    watch = Watch(objective=first.period_s, bound=0.0)
    own = BranchWatch(
        branches=Branches(watch=watch, lower=cut_bounds(problem, listed_configurations(problem), TICKS)), cuts=(1, 1)
    )
    better, spent = improved(problem, first, TICKS, (1, 1), own, ENOUGH, ("max_lp",))
    assert better.period_s == 6 == own.branches.lower[1, 1]
    assert cuts_of(better) == (1, 1)
    assert 0 <= spent <= ENOUGH.limit
    assert math.isclose(plan_overlap([problem], Effort(limit=0.5)).schedule.period_s, 6)
    assert found is not None
