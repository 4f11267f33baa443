"""Pipeline schedules: the bubbles of the literature, and every pass once."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.simulator.overlap.dualpipe import dual_pipe
from simtool.simulator.overlap.pipeline import (
    PassTimes,
    bubble_s,
    forward_only,
    interleaved,
    one_f_one_b,
    pipeline_graph,
    zero_bubble,
)
from simtool.simulator.tasks.simulate import simulate_tasks

SECONDS = st.floats(0.5, 4.0)


def bubble(orders, times):
    return bubble_s(simulate_tasks(pipeline_graph(orders, times)))


@settings(max_examples=30, deadline=None)
@given(ranks=st.integers(1, 8), more=st.integers(0, 9), forward=SECONDS, inputs=SECONDS, weight=SECONDS)
def test_1f1b_and_inference_wait_as_published(ranks, more, forward, inputs, weight):
    times = PassTimes(forward_s=forward, backward_s=inputs + weight, weight_s=weight)
    batches = ranks + more
    assert bubble(one_f_one_b(ranks, batches), times) == pytest.approx((ranks - 1) * (forward + inputs + weight))
    assert bubble(forward_only(ranks, batches), times) == pytest.approx((ranks - 1) * forward)


@pytest.mark.parametrize(("ranks", "batches"), [(4, 8), (8, 20), (16, 64)])
@pytest.mark.parametrize("both", [2.2, 2.5, 3.0])
def test_zero_bubble_and_dualpipe_wait_as_published_where_passes_are_equal(ranks, batches, both):
    """The formulas of DeepSeek-V3's table 2, at F = W = B / 2."""
    times = PassTimes(forward_s=1.0, backward_s=2.0, weight_s=1.0, both_s=both)
    assert bubble(zero_bubble(ranks, batches), times) == pytest.approx((ranks - 1) * (1.0 + 2.0 - 2.0))
    assert bubble(dual_pipe(ranks, batches), times) == pytest.approx((ranks / 2 - 1) * (both + 2.0 - 3.0))


def test_an_interleaved_schedule_waits_for_a_part_of_the_model_only():
    parts, whole = PassTimes(forward_s=0.5, backward_s=1.0), PassTimes(forward_s=1.0, backward_s=2.0)
    assert bubble(interleaved(4, 16, 2), parts) == pytest.approx(bubble(one_f_one_b(4, 16), whole) / 2)


def test_transfers_lengthen_the_way():
    times = PassTimes(forward_s=1.0, transfer_s=0.25)
    assert simulate_tasks(pipeline_graph(forward_only(4, 1), times)).makespan_s == pytest.approx(4.0 + 3 * 0.25)


@pytest.mark.parametrize(
    "orders", [one_f_one_b(4, 8), zero_bubble(4, 8), interleaved(4, 8, 2), dual_pipe(4, 8)], ids=str
)
def test_every_micro_batch_is_passed_once_each_way(orders):
    done = Counter()
    for order in orders:
        for one in order:
            other = one.other if one.kind == "FB" else (one.flow, one.batch)
            for part in "FBW" if one.kind == "FB" else one.kind:
                done[part, *((one.flow, one.batch) if part == "F" else other)] += 1
    assert len(done) == 3 * 8
    assert len(set(done.values())) == 1


def test_what_a_schedule_cannot_do_is_refused():
    for wrong in ((3, 8), (4, 7), (4, 6)):
        with pytest.raises(InputError):
            dual_pipe(*wrong)
    with pytest.raises(InputError):
        interleaved(4, 6, 2)
