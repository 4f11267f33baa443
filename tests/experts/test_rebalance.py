"""When a new placement pays: the shortest path against brute force, and seconds of a move in closed form."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.hardware.links import Link
from simtool.planners.experts.problem import ExpertProblem
from simtool.planners.experts.rebalance import (
    Window,
    break_even_steps,
    move_seconds,
    plan_rebalancing,
    step_load,
)

NEAR = Link(name="near", kind="nvlink", bytes_per_s=100.0, latency_s=0.5, reduces=False, source="made up")
FAR = Link(name="far", kind="network", bytes_per_s=10.0, latency_s=1.0, reduces=False, source="made up")


def placement(*rows):
    return np.array([rows])


@given(seed=st.integers(0, 2**31), windows=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_path_is_the_cheapest_of_all(seed, windows):
    rng = np.random.default_rng(seed)
    placements = [np.stack([rng.permutation(6).reshape(3, 2)]) for _ in range(3)]
    given_windows = [Window(loads=rng.random((1, 6)) + 0.01, steps=float(rng.integers(1, 9))) for _ in range(windows)]
    moving = rng.random((3, 3)) * (1 - np.eye(3))

    def cost(path):
        pairs = zip(given_windows, path, strict=True)
        run = sum(0.5 * one.steps * step_load(placements[place], one.loads) for one, place in pairs)
        return run + sum(moving[a, b] for a, b in zip((0, *path[:-1]), path, strict=True))

    found = plan_rebalancing(placements, given_windows, moving, 0.5)
    assert found.seconds == pytest.approx(min(cost(path) for path in product(range(3), repeat=windows)))
    assert found.seconds == pytest.approx(cost(found.chosen))
    assert found.stay_s == pytest.approx(cost((0,) * windows))
    assert found.seconds <= min(found.stay_s, found.follow_s) * (1 + 1e-12)


def test_a_move_pays_after_the_break_even_and_not_before():
    """One hot expert changes: 3 units of load a step become 2, and the move costs 10 s."""
    old, new = placement([0, 1], [2, 3]), placement([0, 2], [1, 3])
    loads = np.array([[2.0, 1.0, 0.5, 0.5]])
    steps = break_even_steps(old, new, loads, 10.0, 1.0)
    assert steps == pytest.approx(10.0 / 0.5)
    moving = np.array([[0.0, 10.0], [10.0, 0.0]])
    for share, chosen in ((0.99, 0), (1.01, 1)):
        found = plan_rebalancing([old, new], [Window(loads=loads, steps=share * steps)], moving, 1.0)
        assert found.chosen == (chosen,)
    assert break_even_steps(new, old, loads, 10.0, 1.0) == float("inf")


def test_a_move_that_no_single_window_pays_is_made_for_several():
    old, new = placement([0, 1], [2, 3]), placement([0, 2], [1, 3])
    window = Window(loads=np.array([[2.0, 1.0, 0.5, 0.5]]), steps=8.0)
    moving = np.array([[0.0, 10.0], [10.0, 0.0]])
    assert plan_rebalancing([old, new], [window], moving, 1.0).chosen == (0,)
    assert plan_rebalancing([old, new], [window] * 4, moving, 1.0).chosen == (1, 1, 1, 1)


def test_experts_come_from_the_same_node_where_they_can():
    problem = ExpertProblem(loads=np.ones((1, 4)), gpus=4, slots=1, nodes=2, expert_bytes=50.0)
    before = placement([0], [1], [2], [3])
    assert move_seconds(problem, before, before, NEAR, FAR) == 0.0
    assert move_seconds(problem, before, placement([1], [0], [3], [2]), NEAR, FAR) == pytest.approx(0.5 + 50 / 100)
    assert move_seconds(problem, before, placement([2], [1], [0], [3]), NEAR, FAR) == pytest.approx(1.0 + 50 / 10)


def test_owners_share_the_sending():
    problem = ExpertProblem(loads=np.ones((1, 2)), gpus=4, slots=1, nodes=1, expert_bytes=50.0)
    two = move_seconds(problem, placement([0], [0], [1], [1]), placement([0], [0], [0], [0]), NEAR, FAR)
    one = move_seconds(problem, placement([0], [1], [1], [1]), placement([0], [1], [0], [0]), NEAR, FAR)
    assert two == pytest.approx(0.5 + 50 / 100)
    assert one == pytest.approx(0.5 + 100 / 100)


def test_bad_questions_are_refused():
    held = placement([0], [1])
    window = Window(loads=np.ones((1, 2)), steps=1.0)
    with pytest.raises(InputError, match="go together"):
        plan_rebalancing([held], [window], np.zeros((2, 2)), 1.0)
    with pytest.raises(InputError, match="below 0"):
        plan_rebalancing([held], [window], np.array([[-1.0]]), 1.0)
    problem = ExpertProblem(loads=np.ones((1, 2)), gpus=2, slots=1)
    with pytest.raises(InputError, match="nowhere"):
        move_seconds(problem, placement([0], [0]), held, NEAR, FAR)
