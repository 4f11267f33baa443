"""KV capacity: as vLLM reckons it, and a clear word when it does not fit."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtool.errors import InfeasibleError, InputError
from simtool.hardware.device import load_device
from simtool.models.config import load_architecture
from simtool.plan import ExpertOffload, KvPolicy, Parallel, Pool, Scheduler
from simtool.simulator.kv_capacity import context_limit, kv_capacity
from simtool.units import GIB
from tests.lowering.synthetic import dense, device, llama_8b, llama_70b, mixture


def test_rtx_4090_has_the_blocks_that_vllm_reported():
    """vLLM 0.19 on an RTX 4090 (25250627584 bytes): 2588 blocks. The graph constant was set on this very run."""
    pool = Pool(device="rtx-4090", scheduler=Scheduler(max_num_seqs=256, max_num_batched_tokens=2048))
    blocks, memory = kv_capacity(llama_8b(), pool, [device(25250627584 / GIB)])
    assert blocks == pytest.approx(2588, rel=0.05)
    assert memory.kv_bytes_per_block == 16 * 2 * 32 * 8 * 128 * 2
    assert memory.usable_bytes == pytest.approx(0.9 * 25250627584)
    spent = memory.weight_bytes + memory.activation_bytes + memory.graph_bytes + memory.kv_bytes
    assert spent == pytest.approx(memory.usable_bytes)


def test_a_known_number_of_blocks_overrides():
    pool = Pool(device="x", kv=KvPolicy(num_gpu_blocks=1234))
    assert kv_capacity(llama_8b(), pool, [device()])[0] == 1234


def test_what_does_not_fit_says_by_how_much_and_what_would():
    with pytest.raises(InfeasibleError) as error:
        kv_capacity(llama_70b(), Pool(device="x"), [device(80)])
    assert error.value.constraint == "memory"
    assert "GB more on each device" in error.value.detail
    assert error.value.relaxation == "it fits on 2 x synthetic with tp=2 pp=1"
    with pytest.raises(InfeasibleError):
        kv_capacity(llama_70b(), Pool(device="x", kv=KvPolicy(num_gpu_blocks=10)), [device(80)])


def test_the_relaxation_is_tried_and_fits():
    pool = Pool(device="x", parallel=Parallel(tp=2))
    kv_capacity(llama_70b(), pool, [device(80)])


def test_the_nearest_change_keeps_tensor_parallelism_inside_a_node_or_restores_the_usual_memory_share():
    small = replace(device(24), per_node=4)
    with pytest.raises(InfeasibleError) as error:
        kv_capacity(llama_70b(), Pool(device="x"), [small])
    assert error.value.relaxation == "it fits on 8 x synthetic with tp=4 pp=2"
    starved = Pool(device="x", kv=KvPolicy(gpu_memory_utilization=0.01))
    with pytest.raises(InfeasibleError) as error:
        kv_capacity(llama_8b(), starved, [device()])
    assert error.value.relaxation == "it fits with gpu_memory_utilization 0.9"


def test_a_context_beyond_the_cache_is_infeasible():
    pool = Pool(device="x", scheduler=Scheduler(max_model_len=100_000), kv=KvPolicy(num_gpu_blocks=100))
    blocks, memory = kv_capacity(llama_8b(), pool, [device()])
    with pytest.raises(InfeasibleError, match="max_model_len 1600"):
        context_limit(llama_8b(), pool, blocks, memory)
    auto = replace(pool, scheduler=Scheduler())
    assert context_limit(llama_8b(), auto, blocks, memory) == 1600


@given(utilization=st.floats(0.5, 0.95), gib=st.floats(24, 200))
def test_more_memory_never_means_fewer_blocks(utilization, gib):
    pool = Pool(device="x", kv=KvPolicy(gpu_memory_utilization=utilization))
    more = replace(pool, kv=replace(pool.kv, gpu_memory_utilization=min(1.0, utilization + 0.05)))
    try:
        blocks = kv_capacity(llama_8b(), pool, [device(gib)])[0]
    except InfeasibleError:
        return
    assert kv_capacity(llama_8b(), more, [device(gib)])[0] >= blocks
    assert kv_capacity(llama_8b(), pool, [device(gib + 8)])[0] >= blocks


def test_the_fullest_stage_decides():
    pool = Pool(device="x", parallel=Parallel(pp=2, layers_per_stage=(60, 20)))
    uneven = kv_capacity(llama_70b(), pool, [device(141), device(141)])[0]
    even = replace(pool, parallel=Parallel(pp=2))
    assert kv_capacity(llama_70b(), even, [device(141), device(141)])[0] > 2 * uneven
    assert kv_capacity(llama_70b(), pool, [device(180), device(80)])[0] > uneven


def test_windowed_layers_leave_room_for_longer_sequences():
    arch = dense(name="w", layers=8, hidden=1024, heads=8, kv_heads=8, intermediate=4096, vocab=32000, window=512)
    pool = Pool(device="x")
    short = kv_capacity(arch, pool, [device()], sequence_tokens=512)[0]
    long = kv_capacity(arch, pool, [device()], sequence_tokens=8192)[0]
    assert long == pytest.approx(16 * short, rel=0.01)


def test_expert_parallel_workspaces_and_tensor_parallel_buffers_count():
    single = kv_capacity(mixture(), Pool(device="x"), [device()])[1]
    ranks = Pool(device="x", parallel=Parallel(tp=2, dp=4, ep=8))
    spread = kv_capacity(mixture(), ranks, [device()])[1]
    assert spread.activation_bytes > single.activation_bytes
    assert spread.weight_bytes < single.weight_bytes


@pytest.mark.parametrize(
    "kv",
    [
        KvPolicy(gpu_memory_utilization=0.0),
        KvPolicy(gpu_memory_utilization=1.1),
        KvPolicy(block_size=0),
        KvPolicy(num_gpu_blocks=-1),
        KvPolicy(dtype="fp7"),
    ],
)
def test_senseless_policies_are_refused(kv):
    with pytest.raises(InputError):
        kv_capacity(llama_8b(), Pool(device="x", kv=kv), [device()])


def test_the_nearest_change_for_offloaded_experts_has_no_pipeline():
    gpu = load_device("a100-40g")
    arch, offload = load_architecture("mixtral-8x7b"), ExpertOffload(policy="lru", slots=8)
    with pytest.raises(InfeasibleError) as error:
        kv_capacity(arch, Pool(device="x"), [gpu])
    assert error.value.relaxation == "it fits on 3 x a100-40g with tp=1 pp=3"
    with pytest.raises(InfeasibleError) as error:
        kv_capacity(arch, Pool(device="x", offload=offload), [gpu])
    assert error.value.relaxation == "it fits on 4 x a100-40g with tp=4 pp=1"
