"""The design: shapes are those of the lowering, points fill the space within the limits, one seed is one design."""

import numpy as np
import pytest

from simtool.calibration.points import KernelPoint, TimedPoint, Timing
from simtool.calibration.profiling.adaptive import most_uncertain
from simtool.calibration.profiling.design import candidates, coordinates, filling_order, work_of
from simtool.calibration.profiling.routing import ROUTINGS, expert_loads, local_loads
from simtool.calibration.profiling.shapes import served_shapes
from simtool.errors import InputError
from simtool.hardware.fitted_work import ROUTING, activated_experts
from tests.calibration.profiling.fake_bench import BANDWIDTH, PEAK, FakeBench

LIMITS = FakeBench().limits({"design_flops": PEAK}, "bf16")
SHAPES = served_shapes(("llama-3.1-8b", "deepseek-v2-lite"), (1, 8))
KERNELS = {"": "kernel", "norm": "add+rms_norm", "silu_mul": "silu_mul", "rope+write": "rope+write"}


def designed(family, seed=0):
    return candidates([shape for shape in SHAPES if shape.family == family], "bf16", KERNELS, LIMITS, seed)


def test_shapes_are_those_of_the_models():
    found = {(shape.family, *shape.sizes.values()) for shape in SHAPES}
    # llama-3.1-8b: hidden 4096, 32 heads of 128, 8 KV heads, inner 14336, vocabulary 128256
    for n, k in ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)):
        assert ("gemm", n, k) in found
    for n, k in ((768, 4096), (4096, 512), (3584, 4096), (4096, 1792), (16032, 4096)):
        assert ("gemm", n, k) in found
    assert ("attention_decode", 4, 1, 128, 0) in found
    assert ("attention_prefill", 32, 8, 128, 0) in found
    # deepseek-v2-lite: 16 heads of latent attention, 64 experts of 1408 with 6 chosen
    assert {("mla_decode", 16), ("mla_decode", 2), ("mla_prefill", 16)} <= found
    assert ("moe", 2048, 1408, 6, 64, 1, 1, 3) in found
    assert ("moe", 2048, 1408, 6, 64, 8, 1, 3) in found
    assert ("moe", 2048, 1408, 6, 64, 1, 8, 3) in found


def test_a_degree_that_cuts_nothing_is_refused():
    with pytest.raises(InputError):
        served_shapes(("llama-3.1-8b",), (3,))
    assert served_shapes(("llama-3.1-8b",), (3, 8)) == served_shapes(("llama-3.1-8b",), (8,))


@pytest.mark.parametrize("family", sorted({shape.family for shape in SHAPES}))
def test_points_keep_the_limits_and_are_distinct(family):
    points = designed(family)
    assert len(points) > 100
    assert len({point.key for point in points}) == len(points)
    for point in points:
        work = work_of([point])
        assert float(work.flops[0]) / PEAK + float(work.hbm_bytes[0]) / BANDWIDTH <= LIMITS.seconds
        assert float(work.hbm_bytes[0]) <= LIMITS.call_bytes
        if "kv_max" in point.dims:
            assert point.dims["kv_len"] < point.dims["kv_max"] < point.dims["batch"] * point.dims["kv_len"]


def test_one_seed_is_one_design_and_another_is_another():
    assert designed("gemm", 5) == designed("gemm", 5)
    assert designed("gemm", 5) != designed("gemm", 6)


def test_a_prefix_of_the_order_fills_better_than_chance():
    places = coordinates(designed("gemm"))

    def widest_gap(chosen):
        return np.sqrt(((places[:, None] - chosen[None]) ** 2).sum(-1)).min(axis=1).max()

    random = np.random.default_rng(0)
    chance = [widest_gap(places[random.permutation(len(places))[:40]]) for _ in range(20)]
    assert widest_gap(places[:40]) < min(chance)


def test_the_order_takes_every_point_once():
    places = np.random.default_rng(1).random((50, 3))
    assert sorted(filling_order(places)) == list(range(50))
    assert sorted(filling_order(np.zeros((5, 2)))) == list(range(5))


def test_every_variant_is_in_the_first_points():
    first = [point.kernel for point in designed("moe")[:50]]
    assert set(first) == {f"kernel:{routing}" for routing in ROUTINGS}
    assert first.count(f"kernel:{ROUTING}") == 40
    assert {point.kernel for point in designed("attention_prefill")[:10]} == {"kernel:causal", "kernel:prefix"}
    assert {p.kernel for p in designed("elementwise")[:20]} == {"add+rms_norm", "silu_mul", "rope+write"}


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize(
    ("tokens", "top_k", "experts"), [(1, 6, 64), (7, 2, 8), (300, 8, 128), (4096, 6, 64), (5, 8, 8)]
)
def test_loads_are_whole_and_add_up(routing, tokens, top_k, experts):
    loads = expert_loads(tokens, top_k, experts, routing)
    assert loads.sum() == tokens * top_k
    assert loads.min() >= 0
    assert loads.max() <= tokens
    assert (np.diff(loads) <= 1).all()  # largest first, to rounding


def test_the_power_law_is_the_one_that_the_cost_model_assumes():
    for tokens in (64.0, 512.0, 4096.0):
        active = np.count_nonzero(expert_loads(int(tokens), 6, 64, ROUTING))
        assert active == pytest.approx(float(activated_experts(np.array(tokens), np.array(6.0), np.array(64.0))), abs=3)


def test_a_rank_holds_its_share_of_experts_and_about_of_tokens():
    loads = expert_loads(2048, 6, 64, ROUTING)
    own = local_loads(loads, 8)
    assert len(own) == 8
    assert own.sum() == pytest.approx(loads.sum() / 8, rel=0.3)
    np.testing.assert_array_equal(local_loads(loads, 1), loads)
    assert local_loads(expert_loads(1, 6, 64, ROUTING), 8).sum() >= 1


def test_the_next_point_is_far_from_the_measured_ones():
    pytest.importorskip("scipy")

    def point(m):
        return KernelPoint(family="gemm", dtype="bf16", kernel="mm", dims={"m": float(m), "n": 4096.0, "k": 4096.0})

    random = np.random.default_rng(0)
    near = [1, 2, 3, 4, 6, 8, 11, 16, 22, 32, 45, 64]
    timed = [
        TimedPoint(
            point=point(m),
            timing=Timing(seconds=1e-4 * (1 + m / 50) * float(np.exp(random.normal(0, 0.05))), spread=0.0, repeats=5),
        )
        for m in near
    ]
    assert most_uncertain([point(5), point(12), point(4000)], timed) == point(4000)
