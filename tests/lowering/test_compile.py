"""Compiled tables: they say what the operators say, grow with the load, and cost little to reuse."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.plan import KvPolicy, Parallel, Pool, Scheduler
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.compile import compile_engine, price_pool
from simtool.simulator.explain import explain_step
from simtool.simulator.grids import capture_sizes, padded_tokens, token_grid
from simtool.simulator.host import load_host
from tests.lowering.synthetic import HOST, hardware, llama_8b, llama_70b, mixture


def pool(**parallel) -> Pool:
    return Pool(device="synthetic", parallel=Parallel(**parallel), scheduler=Scheduler(async_scheduling=False))


def compiled(arch, one: Pool, **kwargs):
    return compile_engine(arch, one, hardware(), host=HOST, **kwargs)


def test_capture_sizes_are_vllms():
    assert capture_sizes(Scheduler()) == (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
    assert capture_sizes(Scheduler(max_num_seqs=20)) == (1, 2, 4, 8, 16, 24, 32, 40)
    assert capture_sizes(Scheduler(cuda_graphs=False)) == ()
    assert capture_sizes(Scheduler(cuda_graph_sizes=(32, 4))) == (4, 32)
    with pytest.raises(InputError):
        capture_sizes(Scheduler(cuda_graph_sizes=(0, 4)))


def test_padding_reaches_the_next_captured_size():
    padded = padded_tokens(100, (1, 2, 4, 8, 16))
    assert padded[[0, 1, 3, 5, 16, 17, 100]].tolist() == [0, 1, 4, 8, 16, 17, 100]
    assert padded_tokens(3, ()).tolist() == [0, 1, 2, 3]
    assert set(capture_sizes(Scheduler())) <= set(token_grid(2048))


CASES = [
    (llama_8b(), pool(), "decode:64x2048"),
    (llama_70b(), pool(tp=8), "decode:8x4096"),
    (mixture(), pool(tp=2), "decode:128x1024"),
    (mixture(latent=True), pool(tp=2, dp=2, ep=4), "decode:32x8192"),
]


@pytest.mark.parametrize(("arch", "one", "text"), CASES)
def test_tables_agree_with_the_operators(arch, one, text):
    spec, step = compiled(arch, one), parse_batch(text)
    tables, n = spec.tables, step.decodes
    knot = int(np.flatnonzero(tables.kv_knots == step.decode_kv_tokens / n)[0])
    seconds = tables.token_s[0, n] + tables.shared_s[0, n * spec.dp] + tables.decode_s[0, n, knot]
    seconds += tables.head_s[n * spec.dp] + tables.host_s[n]
    explained = explain_step(arch, one, hardware(), step, host=HOST)
    assert seconds == pytest.approx(explained.seconds, rel=1e-9)


@given(new=st.integers(16, 2048), context=st.integers(0, 20000))
@settings(max_examples=25)
def test_prefill_rate_agrees_with_the_operators(new, context):
    spec = SPEC_8B
    rate, step = spec.tables.prefill_rate[0], spec.tables.prefill_step
    u, v = np.log2(new) / step, np.log2(context + 1.0) / step
    i, j = int(u), int(v)
    corners = rate[i : i + 2, j : j + 2]
    weights = np.outer([1 - (u - i), u - i], [1 - (v - j), v - j])
    seconds = float((corners * weights).sum()) * new * (context + (new + 1) / 2)
    # per chunk, as its share of a launch: priced with as many equal chunks as fill 2048 tokens
    together = 2048 / new
    flops = 4 * 32 * 128 * new * (context + (new + 1) / 2)
    moved = 256 * (new * 32 * 2 + (new + context) * 8 * 2)
    expected = 32 * (max(flops / 1e15, moved / 3e12) + 2e-6 / max(1.0, together))
    assert seconds == pytest.approx(expected, rel=0.05)  # worst beside the corner of max(); median 2e-5


SPEC_8B = compiled(llama_8b(), pool())


@pytest.mark.parametrize(("arch", "one", "_"), CASES)
def test_tables_grow_with_the_load(arch, one, _):
    spec = compiled(arch, one)
    for tables in (spec.tables, spec.lower, spec.upper):
        assert (np.diff(tables.token_s, axis=1) >= 0).all()
        assert (np.diff(tables.shared_s, axis=1) >= 0).all()
        assert (np.diff(tables.decode_s, axis=1) >= 0).all()
        assert (np.diff(tables.decode_s, axis=2) >= 0).all()
        assert (np.diff(tables.head_s) >= 0).all()
        assert (np.diff(tables.token_j) >= 0).all()


def test_shapes_are_as_documented():
    one = replace(pool(tp=2, dp=2, ep=4, pp=2), scheduler=Scheduler(max_num_seqs=17, max_num_batched_tokens=100))
    tables = compiled(mixture(), one).tables
    assert tables.token_s.shape == (2, 101)
    assert tables.shared_s.shape == (2, 201)
    assert tables.decode_s.shape == (2, 18, len(tables.kv_knots))
    assert tables.head_s.shape == (35,)
    assert tables.host_s.shape == (18,)
    assert tables.p2p_s.shape == (101,)
    assert tables.p2p_s[-1] > 0
    assert tables.token_j.shape == (201,)
    assert tables.kv_knots[0] == 0
    assert tables.kv_knots[-1] >= mixture().max_position_embeddings
    assert tables.token_s[0, 0] == tables.decode_s[0, 0, 0] == tables.head_s[0] == 0


def test_interval_is_around_the_nominal_and_narrower_than_all_errors_together():
    lower, middle, upper = (tables.token_s[0, 64] for tables in (SPEC_8B.lower, SPEC_8B.tables, SPEC_8B.upper))
    assert 0.9 * middle < lower < middle < upper < 1.1 * middle


def test_graphs_pad_and_eager_steps_are_bound_by_launches():
    tokens = SPEC_8B.tables.token_s[0]
    assert tokens[5] == tokens[8]
    assert tokens[9] == tokens[16]
    eager = replace(pool(), scheduler=Scheduler(cuda_graphs=False))
    slow = compiled(llama_8b(), eager, costs=price_pool(llama_8b(), eager, hardware())).tables.token_s[0]
    assert slow[1] >= tokens[1]
    slower = replace(HOST, eager_launch_s=1e-3)
    bound = compile_engine(llama_8b(), eager, hardware(), host=slower).tables.token_s[0]
    assert bound[1] == bound[2] > 0.1


def test_costs_are_shared_by_pools_that_differ_in_knobs():
    wide = replace(pool(tp=2), scheduler=Scheduler(max_num_seqs=512, max_num_batched_tokens=8192))
    costs = price_pool(llama_8b(), wide, hardware())
    narrow = replace(pool(tp=2), replicas=3, kv=KvPolicy(gpu_memory_utilization=0.8))
    shared, own = compiled(llama_8b(), narrow, costs=costs), compiled(llama_8b(), narrow)
    counts = [1, 64, 512, 2048]
    assert shared.tables.token_s[0, counts] == pytest.approx(own.tables.token_s[0, counts])
    assert shared.tables.decode_s.shape == own.tables.decode_s.shape
    with pytest.raises(InputError, match="priced for another"):
        compiled(llama_8b(), pool(tp=4), costs=costs)
    with pytest.raises(InputError, match="the pool needs more"):
        compiled(llama_8b(), wide, costs=price_pool(llama_8b(), pool(tp=2), hardware()))


def test_energy_stays_below_the_power_limit():
    tables = SPEC_8B.tables
    assert 0 < tables.token_j[2048] <= 630.0 * tables.token_s[0, 2048] * 1.0001
    assert 0 < tables.attention_w <= 630.0 * 1.0001
    assert tables.idle_w == 70.0


def test_memory_and_limits_are_in_the_spec():
    assert SPEC_8B.max_model_len == min(131072, SPEC_8B.num_blocks * 16)
    assert SPEC_8B.devices == 1
    assert set(SPEC_8B.provenance.values()) == {"roofline"}


@pytest.mark.parametrize(
    "one",
    [
        Pool(device="elsewhere"),
        Pool(device="synthetic", parallel=Parallel(pp=2), stage_devices=("synthetic",)),
        Pool(device="synthetic", scheduler=Scheduler(max_num_seqs=0)),
        Pool(device="synthetic", scheduler=Scheduler(max_num_seqs=256, max_num_batched_tokens=128)),
        Pool(device="synthetic", parallel=Parallel(pp=33)),
    ],
)
def test_what_an_engine_refuses(one):
    with pytest.raises(InputError):
        compiled(llama_8b(), one)


def test_host_overhead_is_read_from_the_catalogue():
    vllm = load_host("vllm")
    assert 0 < vllm.per_request_s < vllm.base_s < 0.1
    assert vllm.source
    with pytest.raises(InputError, match="one of"):
        load_host("none")
