"""The benchmark of hit orders: what it prints holds on cases small enough for a test."""

import pytest

from benchmarks.offload import hit_order


@pytest.fixture(scope="module", params=["mixtral-8x7b", "zipf:1"])
def found(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hit_order, "TOKENS", 60)
        return hit_order.row(hit_order.case_of(hit_order.trace_of(request.param, 0.7, 1), 0.5, True))


def test_with_locality_and_room_for_a_step_the_order_holds(found):
    assert found["need"] <= 1
    assert hit_order.broken(found) == ""
    assert found["belady"] > found["predicted"] > found["lru"] > found["random"]


def test_nothing_reuses_more_than_the_bound(found):
    reuses = {name: value for name, value in found.items() if name not in ("need", "its hits")}
    assert max(reuses.values()) == found["bound"]
    assert found["prefetched"] < found["belady"] < found["its hits"]  # hits are bought with loads


def test_an_overflowing_pool_breaks_the_order_and_it_is_told():
    trace = hit_order.trace_of("mixtral-8x7b", 0.7, 1)
    found = hit_order.row(hit_order.case_of(trace, 0.125, True))
    assert found["need"] > 1
    assert found["lru"] == 0.0
    assert hit_order.broken(found) == "lru < random"
