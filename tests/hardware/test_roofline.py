"""The smooth roofline's laws."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simtool.hardware.fitted_work import activated_experts, visible_pairs
from simtool.hardware.roofline import RooflineLaw, Work, floor_seconds

amounts = st.floats(0, 1e18)
LAWS = st.builds(
    RooflineLaw,
    launch_s=st.floats(1e-7, 1e-4),
    compute_efficiency=st.floats(0.05, 1.0),
    memory_efficiency=st.floats(0.05, 1.0),
    exponent=st.floats(1.0, 32.0),
    item_s=st.floats(0, 1e-6),
)


def one(flops: float, moved: float) -> Work:
    return Work(flops=np.array([flops]), hbm_bytes=np.array([moved]))


@given(law=LAWS, flops=amounts, moved=amounts)
def test_between_the_largest_term_and_their_sum(law: RooflineLaw, flops: float, moved: float) -> None:
    seconds = law.seconds(one(flops, moved), 1e15, 1e12)
    terms = [law.launch_s, flops / (law.compute_efficiency * 1e15), moved / (law.memory_efficiency * 1e12)]
    if flops + moved == 0:
        assert seconds == 0
        return
    assert max(terms) * (1 - 1e-9) <= seconds <= sum(terms) * (1 + 1e-9)
    assert seconds >= floor_seconds(one(flops, moved), 1e15, 1e12) * (1 - 1e-9)


@given(law=LAWS, flops=amounts, moved=amounts, more=st.floats(1.0, 100.0))
def test_more_work_takes_longer_and_a_faster_device_less(
    law: RooflineLaw, flops: float, moved: float, more: float
) -> None:
    seconds = law.seconds(one(flops, moved), 1e15, 1e12)
    assert law.seconds(one(flops * more, moved * more), 1e15, 1e12) >= seconds * (1 - 1e-9)
    assert law.seconds(one(flops, moved), 1e15 * more, 1e12 * more) <= seconds * (1 + 1e-9)


@given(new=st.integers(0, 200), prefix=st.integers(0, 200), window=st.integers(0, 150))
def test_visible_pairs_equal_a_count(new: int, prefix: int, window: int) -> None:
    counted = sum(min(p, window) if window else p for p in range(prefix + 1, prefix + new + 1))
    pairs = visible_pairs(np.array([float(new)]), np.array([float(prefix)]), np.array([float(window)]))
    assert pairs == counted


@given(tokens=st.floats(0, 1e6), top_k=st.integers(1, 16), experts=st.integers(1, 1024))
def test_activated_experts_lie_between_top_k_and_all(tokens: float, top_k: int, experts: int) -> None:
    active = activated_experts(np.array([tokens]), np.array([float(top_k)]), np.array([float(experts)]))
    if tokens == 0:
        assert active == 0
    else:
        assert min(top_k, experts) - 1e-9 <= active <= experts + 1e-9
