"""Experts on GPUs: EPLB's example, brute force, bounds, laws, the checker."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.planners.check import CheckError
from simtool.planners.experts.bound import load_bound
from simtool.planners.experts.exchange import exchanged, gpu_loads
from simtool.planners.experts.greedy import greedy_placement
from simtool.planners.experts.layer import greedy_of
from simtool.planners.experts.nodes import divisions
from simtool.planners.experts.plan import place_experts
from simtool.planners.experts.problem import ExpertProblem, measures
from simtool.planners.experts.relabel import relabelled
from simtool.planners.experts.verify import check_expert_placement
from simtool.planners.schedule.progress import Effort

# the example of github.com/deepseek-ai/EPLB's README, and what its code prints for it
LOADS = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ],
    np.float64,
)
EPLB = [[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1], [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]]
LITTLE = Effort(limit=0.05)
NO_SOLVER = Effort(limit=0.0)


def zipf(experts, power):
    return np.arange(1, experts + 1, dtype=np.float64)[None, :] ** -power


def test_the_greedy_is_eplb_on_its_example():
    assert greedy_placement(LOADS, 16, 4, 2, 8).tolist() == EPLB


def test_the_greedy_is_global_where_groups_do_not_divide_over_nodes():
    assert (greedy_placement(LOADS, 16, 3, 2, 8) == greedy_placement(LOADS, 16, 1, 1, 8)).all()


@pytest.mark.parametrize(
    ("groups", "nodes", "greedy", "optimum"),
    [(1, 1, (138.5, 172.0), (136.0, 172.0)), (4, 2, (156.0, 179.5), (151.0, 179.5))],
)
def test_the_example_is_solved_to_optimality(groups, nodes, greedy, optimum):
    problem = ExpertProblem(loads=LOADS, gpus=8, slots=2, groups=groups, nodes=nodes, hierarchical=groups > 1)
    plan = place_experts(problem)
    assert [one.greedy_measures.highest_load for one in plan.layers] == pytest.approx(greedy)
    assert [one.load.objective for one in plan.layers] == pytest.approx(optimum)
    assert all(one.load.closed for one in plan.layers)


def test_strong_skew_is_balanced_where_the_greedy_is_not():
    problem = ExpertProblem(loads=zipf(64, 1.5), gpus=16, slots=5)
    (one,) = place_experts(problem).layers
    mean = problem.loads.sum() / 16
    assert mean / one.load.objective >= 0.995 > 0.95 > mean / one.greedy_measures.highest_load


def all_placements(experts, gpus, slots):
    """Every way to fill the slots that has all experts; GPUs are told apart."""
    for row in product(range(experts), repeat=gpus * slots):
        if len(set(row)) == experts:
            yield np.array(row).reshape(gpus, slots)


SMALL = (
    st.integers(2, 3)
    .flatmap(
        lambda experts: st.tuples(st.lists(st.integers(0, 9), min_size=experts, max_size=experts), st.just(experts))
    )
    .filter(lambda pair: sum(pair[0]) > 0)
)


@given(pair=SMALL, shape=st.sampled_from([(2, 2), (3, 1), (2, 3), (3, 2)]))
@settings(max_examples=15, deadline=None)
def test_bound_optimum_and_what_is_found_are_in_order(pair, shape):
    load, (gpus, slots) = np.array(pair[0], np.float64), shape
    best = min(gpu_loads(load, held).max() for held in all_placements(len(load), gpus, slots))
    (one,) = place_experts(ExpertProblem(loads=load[None, :], gpus=gpus, slots=slots)).layers
    room = 1e-9 * best
    assert load_bound(load, gpus, slots) <= best + room
    assert one.load.bound <= best + room
    assert best - room <= one.load.objective <= one.greedy_measures.highest_load + room
    if one.load.closed:
        assert one.load.objective == pytest.approx(best)


@given(
    load=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    counts=st.permutations([2, 1, 1, 2]),
)
@settings(max_examples=20, deadline=None)
def test_a_division_of_groups_is_the_best_one(load, counts):
    loads = np.array(load, np.float64)[None, :]
    problem = ExpertProblem(loads=loads, gpus=2, slots=3, nodes=2, groups=4, hierarchical=True)
    best = min(
        gpu_loads(loads[0], held).max()
        for held in all_placements(4, 2, 3)
        if not set(held[0]) & set(held[1]) and len(set(held[0])) == 2
    )
    (one,) = place_experts(problem, near=0.0).layers
    assert one.load.objective == pytest.approx(best)
    assert one.load.bound <= best * (1 + 1e-9)


@st.composite
def problems(draw):
    nodes = draw(st.sampled_from([1, 2, 4]))
    gpus, slots = nodes * draw(st.integers(1, 2)), draw(st.integers(1, 3))
    groups = nodes * draw(st.integers(1, 2))
    hierarchical = draw(st.booleans())
    experts = groups * draw(st.integers(1, max(1, gpus * slots // groups)))
    if experts > gpus * slots:
        groups, experts, hierarchical = 1, draw(st.integers(1, gpus * slots)), False
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    loads = rng.pareto(draw(st.floats(0.5, 3.0)), (1, experts)) + 1e-3
    whole = {
        "loads": loads,
        "gpus": gpus,
        "slots": slots,
        "nodes": nodes,
        "groups": groups,
        "hierarchical": hierarchical,
    }
    if draw(st.booleans()):
        whole["sources"] = np.moveaxis(rng.dirichlet(np.ones(nodes), loads.shape), -1, 0) * loads
    if draw(st.booleans()):
        base = ExpertProblem(**{key: value for key, value in whole.items() if key != "sources"})
        old = replace(base, loads=rng.permuted(loads, axis=1))
        whole |= {"present": greedy_of(old, 0).reshape(1, -1), "expert_bytes": 10.0, "load_slack": 0.05}
    return ExpertProblem(**whole)


@given(problem=problems())
@settings(max_examples=15, deadline=None)
def test_every_placement_is_legal_and_never_worse_than_the_greedy(problem):
    plan = place_experts(problem, NO_SOLVER)  # checked inside
    (one,) = plan.layers
    slack = 1 + problem.load_slack + 1e-9
    assert one.load.bound <= one.load.objective * (1 + 1e-9)
    assert one.measures.highest_load <= one.greedy_measures.highest_load * slack
    if one.now is not None:
        assert one.measures.highest_load <= one.now.highest_load * slack
    check_expert_placement(problem, 0, one.greedy.tolist(), one.greedy_measures)


@given(load=st.lists(st.floats(0.0, 1e6), min_size=6, max_size=6), scale=st.sampled_from([1e-9, 1e-3, 1e6]))
@settings(max_examples=30, deadline=None)
def test_exchanges_only_lower_the_highest_load(load, scale):
    weight = scale * (np.array(load) + 1e-3)
    held = greedy_placement(weight[None, :], 9, 1, 1, 3)[0].reshape(3, 3)
    better = exchanged(weight, held)
    assert len(np.unique(better)) == 6
    assert gpu_loads(weight, better).max() <= gpu_loads(weight, held).max() * (1 + 1e-12)


def test_the_same_question_has_the_same_answer():
    problem = ExpertProblem(loads=zipf(9, 1.0), gpus=4, slots=3)
    first, again = (place_experts(problem, Effort(limit=0.1, workers=2)).phy2log.tolist() for _ in range(2))
    assert first == again


def test_what_is_there_stays_where_nothing_is_gained():
    base = ExpertProblem(loads=zipf(12, 1.2), gpus=4, slots=4)
    present = place_experts(base, NO_SOLVER, near=0.1).phy2log
    again = place_experts(replace(base, present=present, expert_bytes=1e6), NO_SOLVER, near=0.1)
    assert again.layers[0].moved.objective == 0.0
    assert again.layers[0].moved.closed


def test_slack_in_load_saves_moves():
    rng = np.random.default_rng(3)
    base = ExpertProblem(loads=zipf(12, 1.0), gpus=4, slots=4)
    drifted = replace(
        base,
        loads=base.loads * rng.lognormal(0.0, 0.3, base.loads.shape),
        present=place_experts(base, NO_SOLVER).phy2log,
        expert_bytes=1.0,
    )
    strict, loose = (place_experts(replace(drifted, load_slack=slack), LITTLE).layers[0] for slack in (0.0, 0.05))
    assert loose.moved.objective < strict.moved.objective
    assert strict.load.objective <= loose.load.objective <= strict.load.objective * 1.05 * (1 + 1e-9)


def test_traffic_goes_to_the_node_that_tokens_come_from():
    """Two halves of equal experts, each wanted by one node alone: nothing has to cross, though the greedy makes it."""
    loads = np.ones((1, 8))
    sources = np.stack([np.arange(8) % 2 == node for node in range(2)])[:, None, :].astype(np.float64)
    problem = ExpertProblem(loads=loads, gpus=4, slots=2, nodes=2, sources=sources)
    (one,) = place_experts(problem, Effort(limit=1.0)).layers
    assert one.greedy_measures.crossing_load > 0
    assert one.crossing.objective == pytest.approx(0.0)
    assert one.load.objective == pytest.approx(2.0)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_relabelling_is_the_best_of_all_permutations(seed):
    rng = np.random.default_rng(seed)
    loads = rng.integers(1, 10, (1, 5)).astype(np.float64)
    problem = ExpertProblem(loads=loads, gpus=4, slots=2, nodes=2, expert_bytes=1.0, present=rng.integers(0, 5, (1, 8)))
    held = np.append(rng.permutation(5), rng.integers(0, 5, 3)).reshape(4, 2)
    moved = measures(problem, 0, relabelled(problem, 0, held)).moved_bytes
    assert moved == min(measures(problem, 0, held[list(order)]).moved_bytes for order in permutations(range(4)))


def test_divisions_are_all_and_once():
    found = list(divisions(6, 3))
    assert len(found) == 15
    assert len({frozenset(division) for division in found}) == 15
    assert all(sorted(group for node in division for group in node) == list(range(6)) for division in found)


GOOD = ExpertProblem(loads=LOADS, gpus=8, slots=2, groups=4, nodes=2, hierarchical=True)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("slots", lambda held: held[:-1]),
        ("expert", lambda held: [[12, *held[0][1:]], *held[1:]]),
        ("replica", lambda held: [[8 if expert == 6 else expert for expert in row] for row in held]),
        ("group", lambda held: [held[7], *held[1:7], held[0]]),
        ("load", lambda held: held),
    ],
)
def test_the_checker_names_the_broken_rule(rule, change):
    held = greedy_of(GOOD, 0)
    claimed = measures(GOOD, 0, held)
    check_expert_placement(GOOD, 0, held.tolist(), claimed)
    said = replace(claimed, highest_load=claimed.highest_load - 1) if rule == "load" else claimed
    with pytest.raises(CheckError) as error:
        check_expert_placement(GOOD, 0, change(held.tolist()), said)
    assert error.value.rule == rule


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"loads": np.zeros((1, 4))}, "not be all 0"),
        ({"loads": np.array([[1.0, np.nan]])}, "from 0 to"),
        ({"loads": np.ones(4)}, "layers by experts"),
        ({"gpus": 0}, "from 1 to"),
        ({"nodes": 3}, "equal nodes"),
        ({"slots": 1}, "do not hold 12 experts"),
        ({"groups": 5}, "equal groups"),
        ({"groups": 1}, "spread evenly"),
        ({"sources": np.ones((2, 2, 12))}, "add up"),
        ({"present": np.full((2, 16), 12)}, "present placement"),
        ({"load_slack": -0.1}, "a number from 0"),
    ],
)
def test_bad_problems_are_refused(change, word):
    with pytest.raises(InputError, match=word):
        replace(GOOD, **change)
