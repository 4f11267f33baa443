"""ETS: the integer program against brute force, never worse than keeping all; REBASE's shares."""

from itertools import chain, combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reproductions import d3_ets as d3
from simtool.errors import InputError
from simtool.planners.programs.ets import choose_leaves
from simtool.planners.programs.ets_problem import EtsProblem, ets_value
from simtool.simulator.programs.rebase import rebase_shares


@st.composite
def problems(draw):
    inner, leaves = draw(st.integers(0, 6)), draw(st.integers(1, 8))
    return EtsProblem(
        parent=tuple(draw(st.integers(-1, node - 1)) for node in range(inner)),
        above=tuple(draw(st.integers(-1, inner - 1)) for _ in range(leaves)),
        shares=tuple(draw(st.integers(1, 9)) for _ in range(leaves)),
        cluster=tuple(draw(st.integers(0, 4)) for _ in range(leaves)),
        kv_weight=draw(st.sampled_from([0.0, 0.5, 1.0, 2.25])),
        coverage_weight=draw(st.sampled_from([0.0, 1.4, 1.45, 1.5])),
    )


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_program_equals_brute_force(problem):
    found = choose_leaves(problem)
    leaves = range(len(problem.above))
    subsets = chain.from_iterable(combinations(leaves, size) for size in range(1, len(leaves) + 1))
    best = max(ets_value(problem, subset) for subset in subsets)
    assert found.value == best == ets_value(problem, found.kept)
    assert found.value >= found.all_value == ets_value(problem, leaves)
    assert found.certificate.closed


def test_shared_paths_are_cheaper_than_paths_of_their_own():
    """Two leaves under one node, one alone under its own: alike in all else, the lonely one is left out."""
    problem = EtsProblem(
        parent=(-1, 0, 0), above=(1, 1, 2), shares=(2, 2, 2), cluster=(0, 0, 0), kv_weight=1.5, coverage_weight=0.0
    )
    assert choose_leaves(problem).kept in ((0, 1), (0,), (1,))
    one_cluster = choose_leaves(problem).kept
    apart = EtsProblem(
        parent=(-1, 0, 0), above=(1, 1, 2), shares=(2, 2, 2), cluster=(0, 0, 1), kv_weight=1.5, coverage_weight=1.5
    )
    assert 2 not in one_cluster
    assert 2 in choose_leaves(apart).kept


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 256))
def test_shares_fill_the_width_in_the_order_of_scores(scores, width):
    shares = rebase_shares(scores, width)
    assert width <= shares.sum() <= width + len(scores)
    assert shares.min() >= 1
    order = sorted(range(len(scores)), key=scores.__getitem__)
    assert all(shares[a] <= shares[b] for a, b in pairwise(order))


def test_equal_scores_share_alike():
    assert rebase_shares([0.3, 0.3, 0.3, 0.3], 16).tolist() == [4, 4, 4, 4]
    assert rebase_shares([1.0, 0.8], 4).tolist() == [3, 2]  # 4 e / (1 + e) = 2.92 and 1.08, rounded up


@pytest.mark.parametrize(
    "ask",
    [
        lambda: rebase_shares([], 4),
        lambda: rebase_shares([0.1], 0),
        lambda: rebase_shares([float("nan")], 4),
        lambda: EtsProblem(parent=(0,), above=(0,), shares=(1,), cluster=(0,)),
        lambda: EtsProblem(parent=(-1,), above=(1,), shares=(1,), cluster=(0,)),
        lambda: EtsProblem(parent=(-1,), above=(0,), shares=(0,), cluster=(0,)),
        lambda: EtsProblem(parent=(-1,), above=(), shares=(), cluster=()),
        lambda: EtsProblem(parent=(-1,), above=(0,), shares=(1,), cluster=(0,), kv_weight=-1.0),
        lambda: ets_value(EtsProblem(parent=(-1,), above=(0,), shares=(1,), cluster=(0,)), []),
    ],
)
def test_bad_questions_are_refused(ask):
    with pytest.raises(InputError):
        ask()


def test_d3_holds_less_kv_than_keeping_all_leaves():
    read, peak, proven, depths = d3.ratios(16, seeds=2)
    assert read > 1.0
    assert peak > 1.0
    assert proven == depths


def test_d3_trims_to_the_width_from_the_worst():
    assert d3.trimmed([3, 2, 1], [0.9, 0.5, 0.1], 4) == [3, 1, 0]
