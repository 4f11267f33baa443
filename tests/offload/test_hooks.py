"""Place, split and regroup; needs from routes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.simulator.offload.needs import expert_needs, next_visits, ranked_needs
from simtool.simulator.offload.placing import random_experts, split_slots, used_most
from simtool.simulator.offload.regroup import regrouped, unique_experts
from tests.offload.making import routed, seeds

quick = settings(max_examples=40, deadline=None)


@quick
@given(seeds, st.integers(0, 24), st.integers(0, 2))
def test_a_split_places_the_most_used_experts_of_all(seed, total, least):
    """No other split of as many slots, with as many for each layer, has more uses placed."""
    rng = np.random.default_rng(seed)
    uses = rng.integers(0, 50, (4, 6))
    total = max(total, 4 * least)
    slots = split_slots(uses, total, least=least)
    assert slots.sum() == total
    assert slots.min() >= least
    placed = uses.ravel()[used_most(uses, slots.tolist())].sum()
    for _ in range(20):
        other = np.full(4, least) + rng.multinomial(total - 4 * least, [0.25] * 4)
        if other.max() <= 6:
            assert placed >= uses.ravel()[used_most(uses, other.tolist())].sum()


def test_random_experts_fill_the_slots():
    held = random_experts(3, 8, [1, 0, 8], np.random.default_rng(0)).reshape(3, 8)
    assert held.sum(axis=1).tolist() == [1, 0, 8]


@pytest.mark.parametrize("make", [lambda uses: split_slots(uses, 99), lambda uses: used_most(uses, 7)])
def test_more_slots_than_experts_are_refused(make):
    with pytest.raises(InputError, match="slots"):
        make(np.ones((3, 6)))


@quick
@given(seeds, st.integers(1, 5), st.integers(1, 5))
def test_regrouping_keeps_the_sizes_and_parts_two_kinds_of_tokens(seed, first, second):
    rng = np.random.default_rng(seed)
    kind = rng.permutation(np.repeat([0, 1], [first, second]))
    alike = np.array([[[0, 1], [2, 3]], [[4, 5], [6, 7]]], np.int16)[kind]
    side = regrouped(alike, 8, (first, second))
    assert np.bincount(side, minlength=2).tolist() == [first, second]
    if first == second:
        assert unique_experts(alike, side, 8) == 8  # each batch has one kind, four experts of each in two layers
    chosen = rng.random((first + second, 2, 8)).argsort(axis=2)[:, :, :2].astype(np.int16)
    assert np.bincount(regrouped(chosen, 8, (first, second)), minlength=2).tolist() == [first, second]


def test_an_empty_batch_takes_no_tokens():
    assert regrouped(np.zeros((3, 1, 1), np.int16), 4, (3, 0)).tolist() == [0, 0, 0]


@quick
@given(seeds, st.integers(1, 4))
def test_needs_count_the_tokens_of_each_expert(seed, batch):
    rng = np.random.default_rng(seed)
    chosen = rng.random((5 * batch, 3, 6)).argsort(axis=2)[:, :, :2].astype(np.int16)
    step = np.repeat([3, 4, 7, 8, 20], batch)
    for make in (expert_needs, ranked_needs):
        needs = make(chosen, step, 6)
        assert needs.steps == 5
        for visit in range(15):
            span = slice(needs.starts[visit], needs.starts[visit + 1])
            rows = chosen[step == np.unique(step)[visit // 3], visit % 3]
            counts = np.bincount(rows.ravel(), minlength=6)
            assert dict(zip(needs.objects[span] - visit % 3 * 6, needs.tokens[span], strict=True)) == {
                expert: count for expert, count in enumerate(counts) if count
            }
            if make is ranked_needs:
                assert (np.diff(needs.tokens[span]) <= 0).all()


def test_predictions_of_nothing_leave_a_visit_empty():
    experts = np.array([[[-1, -1], [2, 0]]], np.int16)
    needs = ranked_needs(experts, np.zeros(1), 4)
    assert needs.starts.tolist() == [0, 0, 2]
    assert (needs.objects - 4).tolist() == [2, 0]  # in the order of the row


@quick
@given(seeds)
def test_the_next_visit_is_the_next_one_that_needs_the_object(seed):
    needs = routed(seed, steps=6)
    visit = np.repeat(np.arange(18), np.diff(needs.starts))
    for place, found in enumerate(next_visits(needs, 18)):
        later = visit[(needs.objects == needs.objects[place]) & (visit > visit[place])]
        assert found == (later.min() if len(later) else 18)
