"""Explain: the rows add up, the bounds hold, the batch text is read strictly."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.plan import Parallel, Pool, Scheduler
from simtool.simulator.batch_text import Chunk, parse_batch
from simtool.simulator.explain import explain_step
from tests.lowering.synthetic import HOST, hardware, llama_8b, mixture


def test_batch_text():
    step = parse_batch("decode:64x2048 + prefill:1x512@1024+prefill:2x100")
    assert (step.decodes, step.decode_kv_tokens) == (64, 64 * 2048)
    assert step.chunks == (
        Chunk(requests=1, new_tokens=512, context_tokens=1024),
        Chunk(requests=2, new_tokens=100, context_tokens=0),
    )
    assert (step.tokens, step.requests, step.longest_tokens) == (64 + 512 + 200, 67, 2048)


@pytest.mark.parametrize(
    "text",
    ["", "decode", "decode:64", "decode:0x10", "decode:4x0", "decode:4x10@5", "prefill:-1x5", "prefill:1x5+", "x:1x2"],
)
def test_bad_batch_text(text):
    with pytest.raises(InputError):
        parse_batch(text)


CASES = [
    (llama_8b(), Parallel()),
    (llama_8b(), Parallel(tp=2, pp=2)),
    (mixture(latent=True), Parallel(tp=2, dp=2, ep=4)),
]


@pytest.mark.parametrize(("arch", "parallel"), CASES)
@given(decodes=st.integers(1, 100), kv=st.integers(1, 8000), new=st.integers(1, 1000), context=st.integers(0, 8000))
@settings(max_examples=10)
def test_rows_add_up_and_lie_between_the_bounds(arch, parallel, decodes, kv, new, context):
    pool = Pool(device="synthetic", parallel=parallel, scheduler=Scheduler(async_scheduling=False))
    step = parse_batch(f"decode:{decodes}x{kv}+prefill:1x{new}@{context}")
    found = explain_step(arch, pool, hardware(), step, host=HOST)
    device_s = sum(row.seconds for row in found.rows)
    assert sum(row.share for row in found.rows) == pytest.approx(1.0)
    assert found.seconds == pytest.approx(device_s + found.host_s + found.launch_bound_s + found.gap_s)
    assert found.t_lower_s <= device_s
    assert found.t_lower_s <= found.t_upper_s
    assert found.lower_s < found.seconds < found.upper_s
    assert all(0 <= row.roofline_share <= 1 for row in found.rows)
    assert [row.seconds for row in found.rows] == sorted((row.seconds for row in found.rows), reverse=True)


def test_achieved_rates_stay_below_the_device():
    found = explain_step(llama_8b(), Pool(device="synthetic"), hardware(), parse_batch("prefill:1x2048"), host=HOST)
    assert all(row.flops_per_s <= 1e15 and row.hbm_bytes_per_s <= 3e12 for row in found.rows)
    largest = max(found.rows, key=lambda row: row.flops_per_s)
    assert largest.family == "gemm"
    assert largest.flops_per_s > 0.8e15


def test_padding_and_asynchronous_scheduling():
    pool = Pool(device="synthetic", scheduler=Scheduler(async_scheduling=False))
    found = explain_step(llama_8b(), pool, hardware(), parse_batch("decode:5x100"), host=HOST)
    assert (found.tokens, found.padded_tokens) == (5, 8)
    hidden = replace(pool, scheduler=Scheduler(async_scheduling=True))
    overlapped = explain_step(llama_8b(), hidden, hardware(), parse_batch("decode:5x100"), host=HOST)
    assert overlapped.seconds == pytest.approx(found.seconds - found.host_s)


def test_eager_steps_show_what_launching_adds():
    pool = Pool(device="synthetic", scheduler=Scheduler(cuda_graphs=False))
    slow = replace(HOST, eager_launch_s=1e-4)
    assert explain_step(llama_8b(), pool, hardware(), parse_batch("decode:1x10"), host=slow).launch_bound_s > 0.01


@pytest.mark.parametrize("text", ["decode:300x10", "prefill:1x4096", "decode:1x200000"])
def test_a_batch_that_the_engine_never_forms(text):
    with pytest.raises(InputError):
        explain_step(llama_8b(), Pool(device="synthetic"), hardware(), parse_batch(text), host=HOST)
