"""Laws of the cost model, on shipped profiles and on made-up ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster
from simtool.hardware.device import device_names, load_device
from simtool.hardware.fitted import FittedCostModel, load_cost_model
from simtool.hardware.fitted_work import STORED_BYTES
from simtool.models.lowering_kernels import elementwise
from simtool.models.operators import Operator

DTYPES = ("bf16", "fp16", "fp8", "int8", "int4", "mxfp4", "nvfp4")
STATED_BY_TABLES = ("fp8_block", "int8_wo")


def model_of(device: str, library: str = "vllm") -> FittedCostModel:
    return load_cost_model(load_device(device), parse_cluster(f"4x{device}").group_of(), library)


@pytest.fixture(scope="module")
def h200() -> FittedCostModel:
    return model_of("h200")


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


def gemm(m: np.ndarray, n: float, k: float, dtype: str = "bf16") -> Operator:
    dims = {"m": m, "n": np.full(m.shape, n), "k": np.full(m.shape, k)}
    moved = (m > 0) * n * k * STORED_BYTES[dtype] + 2 * m * (n + k)
    return Operator(name="g", family="gemm", count=1, dtype=dtype, dims=dims, flops=2 * m * n * k, hbm_bytes=moved)


def decode(batch: np.ndarray, kv_len: np.ndarray, window: float = 0, dtype: str = "bf16") -> Operator:
    shape = np.broadcast_shapes(batch.shape, kv_len.shape)
    fixed = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0, "window": window}
    dims = {"batch": np.broadcast_to(batch, shape), "kv_len": np.broadcast_to(kv_len, shape)}
    dims |= {name: np.full(shape, value) for name, value in fixed.items()}
    keys = np.minimum(dims["kv_len"], window) if window else dims["kv_len"]
    flops = 4 * dims["batch"] * keys * 32 * 128
    return Operator(
        name="d", family="attention_decode", count=1, dtype=dtype, dims=dims, flops=flops, hbm_bytes=flops / 4
    )


def prefill(batch: float, seq: np.ndarray, prefix: np.ndarray) -> Operator:
    ones = np.ones(seq.shape)
    dims = {"batch": batch * ones, "seq": seq, "prefix": prefix * ones, "heads": 32 * ones, "kv_heads": 8 * ones}
    dims |= {"head_dim": 128 * ones, "window": 0 * ones}
    flops = 4 * batch * 32 * 128 * (seq * prefix + seq * (seq + 1) / 2)
    return Operator(
        name="p",
        family="attention_prefill",
        count=1,
        dtype="bf16",
        dims=dims,
        flops=flops,
        hbm_bytes=batch * seq * 2 * 128 * 80,
    )


def experts(tokens: np.ndarray, dtype: str, ep: float = 1, matrices: int = 3) -> Operator:
    sizes = {"hidden": 4096.0, "inter": 1536.0, "top_k": 8.0, "num_experts": 128.0, "moe_tp": 1.0, "moe_ep": ep}
    dims = {"tokens": tokens} | {name: np.full(tokens.shape, value) for name, value in sizes.items()}
    flops = 2 * matrices * tokens * 8 / ep * 4096 * 1536
    return Operator(name="e", family="moe", count=1, dtype=dtype, dims=dims, flops=flops, hbm_bytes=flops / 100)


@settings(max_examples=60, deadline=None)
@given(
    m=st.lists(st.floats(0, 1e6), min_size=1, max_size=20),
    n=st.floats(1, 1e6),
    k=st.floats(1, 1e6),
    dtype=st.sampled_from(DTYPES),
)
def test_any_gemm_has_a_finite_positive_price(
    h200: FittedCostModel, m: list[float], n: float, k: float, dtype: str
) -> None:
    cost = h200.price(gemm(np.array(m), n, k, dtype))
    busy = np.array(m) > 0
    assert np.all(np.isfinite(cost.seconds))
    assert np.all(cost.seconds[busy] > 0)
    assert np.all(cost.seconds[~busy] == 0)
    assert np.all(cost.lower <= cost.seconds)
    assert np.all(cost.seconds <= cost.upper)


@settings(max_examples=40, deadline=None)
@given(batch=st.floats(0, 1e5), length=st.floats(0, 1e7), window=st.sampled_from([0, 128, 8192]))
def test_any_decode_has_a_finite_price(h200: FittedCostModel, batch: float, length: float, window: float) -> None:
    cost = h200.price(decode(column(batch), column(length), window))
    assert np.all(np.isfinite(cost.seconds))
    assert np.all(cost.seconds >= 0)


@pytest.mark.parametrize(
    ("device", "library"),
    [(device, "vllm") for device in device_names()]
    + [(device, library) for device in ("h200", "l4") for library in ("sglang", "trtllm", "torch")],
)
def test_every_device_and_library_prices_every_family(device: str, library: str) -> None:
    model = model_of(device, library)
    for dtype in DTYPES + STATED_BY_TABLES:
        for operator in (gemm(column(1, 64, 4096), 8192, 8192, dtype), experts(column(1, 64, 4096), dtype)):
            cost = model.price(operator)
            assert np.all(np.isfinite(cost.seconds)), (operator.family, dtype)
            assert np.all(np.diff(cost.seconds) >= -0.3 * cost.seconds[:-1]), (operator.family, dtype)
            assert cost.source
    for operator in (decode(column(1, 64), column(2048)), prefill(1, column(128, 2048), column(0.0))):
        assert np.all(model.price(operator).seconds > 0)


def test_decode_is_linear_in_length_far_beyond_the_table(h200: FittedCostModel) -> None:
    lengths = column(1e6, 2e6, 4e6, 8e6)
    seconds = h200.price(decode(column(8), lengths)).seconds
    assert seconds[1:] / seconds[:-1] == pytest.approx([2.0, 2.0, 2.0], rel=0.15)


def test_more_work_is_never_much_cheaper(h200: FittedCostModel) -> None:
    """Measured tables are not monotone (tile steps), so a fall of a few percent is the data's, a larger one is ours."""
    batch = 2.0 ** np.arange(0, 11)
    for operator in (decode(batch, column(2048)), decode(column(16), 2.0 ** np.arange(4, 18)), experts(batch, "bf16")):
        seconds = h200.price(operator).seconds
        assert np.all(seconds[1:] >= 0.9 * seconds[:-1])
    chunks = h200.price(prefill(1, 2.0 ** np.arange(4, 15), column(0.0))).seconds
    assert np.all(chunks[1:] >= 0.9 * chunks[:-1])
    assert (
        h200.price(prefill(1, column(512), column(16384))).seconds
        > h200.price(prefill(1, column(512), column(0))).seconds
    )


def test_a_price_says_how_it_is_known() -> None:
    assert model_of("h200").price(gemm(column(64), 4096, 4096)).provenance == "interpolated"
    hopper = model_of("h100-sxm").price(gemm(column(64), 4096, 4096))
    assert hopper.provenance == "transferred"
    assert "h200" in hopper.source
    far = model_of("h200").price(gemm(column(64), 4e6, 4096))
    assert far.provenance == "roofline"


def test_beyond_the_table_the_interval_is_wider(h200: FittedCostModel) -> None:
    cost = h200.price(gemm(column(64, 64), 8192, 8192))
    far = h200.price(gemm(column(64), 2e6, 8192))
    assert np.all(far.upper / far.seconds > 1.1 * cost.upper[:1] / cost.seconds[:1])


def test_transfer_scales_with_the_specification() -> None:
    """H100 SXM is an H200 with 3.35 instead of 4.8 TB/s: same compute-bound time, slower when memory-bound."""
    small, large = gemm(column(16), 16384, 16384), gemm(column(8192), 16384, 16384)
    h200, h100 = model_of("h200"), model_of("h100-sxm")
    assert h100.price(large).seconds == pytest.approx(h200.price(large).seconds, rel=0.05)
    ratio = h100.price(small).seconds / h200.price(small).seconds
    assert 1.25 < ratio < 4.8 / 3.35 + 0.01
    transferred, own = h100.price(small), h200.price(small)
    assert transferred.upper / transferred.seconds >= own.upper / own.seconds


def test_a_dtype_the_device_lacks_is_weight_only() -> None:
    """FP8 on an A100 reads small weights and computes in bf16: faster only when memory-bound."""
    model = model_of("a100-80g")
    cost, wide = model.price(gemm(column(4), 8192, 8192, "fp8")), model.price(gemm(column(4), 8192, 8192))
    assert 0.4 < cost.seconds / wide.seconds < 0.75
    assert "widened" in cost.source
    heavy = model.price(gemm(column(8192), 8192, 8192, "fp8")).seconds
    assert heavy == pytest.approx(model.price(gemm(column(8192), 8192, 8192)).seconds, rel=0.05)


def test_experts_without_a_gate_do_two_thirds_of_the_work(h200: FittedCostModel) -> None:
    gated = h200.price(experts(column(4096), "bf16"))
    plain = h200.price(experts(column(4096), "bf16", matrices=2))
    assert 0.6 < plain.seconds / gated.seconds < 0.75


def test_elementwise_pays_every_launch_and_its_bytes(h200: FittedCostModel) -> None:
    one, four = (
        h200.price(elementwise("e", count=1, tokens=column(1), bytes_per_token=8192, dtype="bf16", launches=n))
        for n in (1, 4)
    )
    assert four.seconds == pytest.approx(4 * one.seconds, rel=0.1)
    assert 1e-6 < one.seconds < 5e-6
    heavy = h200.price(elementwise("e", count=1, tokens=column(65536), bytes_per_token=65536, dtype="bf16"))
    assert heavy.seconds > heavy.roofline_s * 0.99


def test_an_operator_without_known_dims_gets_the_roofline(h200: FittedCostModel) -> None:
    operator = Operator(
        name="x",
        family="attention_decode",
        count=1,
        dtype="bf16",
        dims={"batch": column(1)},
        flops=column(1e9),
        hbm_bytes=column(1e6),
    )
    cost = h200.price(operator)
    assert cost.provenance == "roofline"
    assert cost.seconds > cost.roofline_s


def test_an_unknown_library_is_refused() -> None:
    with pytest.raises(InputError, match="kernel library"):
        model_of("h200", "tensorflow")


def test_an_unknown_dtype_is_refused(h200: FittedCostModel) -> None:
    operator = gemm(column(1), 64, 64)
    broken = Operator(
        name="x",
        family="gemm",
        count=1,
        dtype="int3",
        dims=operator.dims,
        flops=operator.flops,
        hbm_bytes=operator.hbm_bytes,
    )
    with pytest.raises(InputError, match="dtype"):
        h200.price(broken)


def test_native_fp4_is_faster_than_fp8_where_the_device_has_it() -> None:
    model = model_of("b200")
    for m in (4.0, 16384.0):
        narrow, wide = (model.price(gemm(column(m), 16384, 16384, dtype)) for dtype in ("nvfp4", "fp8"))
        assert narrow.seconds < 0.8 * wide.seconds
        assert narrow.provenance == "transferred"


@pytest.mark.parametrize("device", ["l40s", "rtx-4090", "h200"])
def test_no_price_relies_on_weights_left_in_a_cache(device: str) -> None:
    """An L40S holds an 8 MB weight in its cache while a table repeats the call; a real step reads it from memory."""
    model, memory = model_of(device), load_device(device).hbm_bytes_per_s
    for operator in (
        gemm(column(1, 16), 2048, 2048),
        gemm(column(1, 16), 8192, 4096),
        decode(column(8, 64), column(900)),
    ):
        assert np.all(model.price(operator).seconds >= operator.hbm_bytes / memory)
