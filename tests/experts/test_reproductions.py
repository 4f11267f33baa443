"""The scripts of B10 and F2 run and show what the page says of them."""

import pytest

from benchmarks.reproductions import b10_eplb, f2_expert_placement


def test_eplbs_map_is_reproduced_slot_by_slot():
    assert b10_eplb.wrong_slots() == 0


def test_the_hierarchical_rows_of_b10():
    for layer, one in enumerate(b10_eplb.planned(True).layers):
        assert one.greedy_measures.highest_load == pytest.approx(b10_eplb.PUBLISHED[layer, True][0])
        assert one.load.closed


@pytest.mark.parametrize(("size", "published"), f2_expert_placement.PUBLISHED.items())
def test_published_balance_is_reached(size, published):
    experts, replicas, gpus = size
    text, one, found = f2_expert_placement.row(f2_expert_placement.zipf(experts, 1.5), replicas, gpus)
    assert found >= published[1]
    assert one.load.gap <= 1.1e-3
    assert "less" in text
