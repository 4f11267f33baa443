"""Laws of weight and cache bytes under parallel plans."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.models.config import load_architecture
from simtool.models.memory import (
    full_kv_bytes_per_token,
    kv_bytes_per_sequence,
    kv_bytes_per_token,
    kv_bytes_per_token_per_device,
    stage_layers,
    state_bytes_per_sequence,
    weight_bytes,
    weight_bytes_per_device,
    window_kv_bytes,
)
from simtool.models.parameters import parameter_counts
from simtool.plan import Parallel

NAMES = ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v3", "gpt-oss-20b", "gemma-4-26b-a4b", "qwen3.5-35b-a3b", "glm-5"]
ARCHITECTURES = {name: load_architecture(name) for name in (*NAMES, "llama-3.2-1b", "nemotron-3-nano-30b-a3b")}
POWERS = st.sampled_from([1, 2, 4, 8])


@st.composite
def plans(draw):
    tp, dp = draw(POWERS), draw(POWERS)
    ep = draw(st.sampled_from([degree for degree in (1, 2, 4, 8, 16) if tp * dp % degree == 0]))
    return Parallel(tp=tp, pp=draw(st.integers(1, 9)), dp=dp, ep=ep)


@given(name=st.sampled_from(sorted(ARCHITECTURES)), parallel=plans())
@settings(max_examples=60, deadline=None)
def test_all_devices_together_hold_at_least_the_whole(name, parallel):
    arch = ARCHITECTURES[name]
    held = sum(weight_bytes_per_device(arch, parallel, stage) for stage in range(parallel.pp))
    assert held * parallel.tp * parallel.dp >= weight_bytes(arch) * (1 - 1e-12)


@given(name=st.sampled_from(NAMES), pp=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_the_stages_of_one_pipeline_add_up_to_the_whole(name, pp):
    arch = ARCHITECTURES[name]
    parallel = Parallel(pp=pp)
    stages = range(pp)
    tied = arch.vocab_size * arch.hidden_size * 2 if arch.tie_word_embeddings and pp > 1 else 0
    assert sum(weight_bytes_per_device(arch, parallel, s) for s in stages) == pytest.approx(weight_bytes(arch) + tied)
    kv = sum(kv_bytes_per_token_per_device(arch, parallel, s) for s in stages)
    assert kv == pytest.approx(kv_bytes_per_token(arch))
    assert sum(state_bytes_per_sequence(arch, parallel, s) for s in stages) == pytest.approx(
        state_bytes_per_sequence(arch)
    )


@given(name=st.sampled_from(sorted(ARCHITECTURES)), ep=st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=30, deadline=None)
def test_more_tensor_parallel_ranks_never_hold_more(name, ep):
    arch = ARCHITECTURES[name]
    held = [weight_bytes_per_device(arch, Parallel(tp=tp, ep=min(ep, tp)), 0) for tp in (1, 2, 4, 8, 16)]
    assert held == sorted(held, reverse=True)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_an_unquantised_model_takes_its_parameters_times_two_bytes(name):
    arch = load_architecture(name, "bf16")
    counts = parameter_counts(arch)
    assert weight_bytes(arch) == 2 * (counts.total + counts.multimodal)


def test_kv_heads_are_repeated_when_there_are_fewer_than_ranks():
    arch = ARCHITECTURES["llama-3.1-8b"]
    per_token = [kv_bytes_per_token_per_device(arch, Parallel(tp=tp), 0) for tp in (1, 8, 16)]
    assert per_token == [131072, 131072 / 8, 131072 / 8]


def test_a_latent_cache_is_whole_on_every_rank_and_attention_repeated_by_data_parallelism():
    arch = ARCHITECTURES["deepseek-v3"]
    assert kv_bytes_per_token_per_device(arch, Parallel(tp=8), 0) == 70272
    spread = weight_bytes_per_device(arch, Parallel(dp=8, ep=8), 0)
    experts = parameter_counts(arch).experts * (1 + 4 / 128**2)
    assert spread == pytest.approx(weight_bytes(arch) - experts * 7 / 8)


def test_windowed_layers_hold_their_window_only():
    arch = ARCHITECTURES["gpt-oss-20b"]
    layer = 2 * 8 * 64 * 2
    assert kv_bytes_per_sequence(arch, 100) == 100 * 24 * layer
    assert kv_bytes_per_sequence(arch, 10_000) == 12 * layer * (10_000 + 128)
    assert kv_bytes_per_sequence(arch, 10_000) == window_kv_bytes(arch) + 10_000 * full_kv_bytes_per_token(arch)


def test_an_eight_bit_cache_halves_ordinary_layers_and_keeps_index_keys():
    assert kv_bytes_per_token(ARCHITECTURES["llama-3.1-8b"], "fp8") == 65536
    # vLLM's fp8_ds_mla: 512 fp8 + 4 fp32 scales + 64 bf16, and 132 bytes of index keys, a layer.
    assert kv_bytes_per_token(ARCHITECTURES["glm-5"], "fp8") == 78 * (656 + 132)
    with pytest.raises(InputError, match="KV cache dtype"):
        kv_bytes_per_token(ARCHITECTURES["glm-5"], "fp9")


@pytest.mark.parametrize(
    ("layers", "pp", "sizes"),
    [("qwen3-30b-a3b", 5, [9, 10, 10, 10, 9]), ("deepseek-v3", 4, [15, 15, 16, 15]), ("llama-3.1-8b", 4, [8] * 4)],
)
def test_layers_are_split_as_vllm_does(layers, pp, sizes):
    spans = stage_layers(ARCHITECTURES[layers], Parallel(pp=pp))
    assert [len(span) for span in spans] == sizes
    assert [index for span in spans for index in span] == list(range(sum(sizes)))


@pytest.mark.parametrize("split", [(16, 17), (32,), (0, 32), (40, -8)])
def test_a_wrong_split_is_an_input_error(split):
    with pytest.raises(InputError, match="layers per stage"):
        stage_layers(ARCHITECTURES["llama-3.1-8b"], Parallel(pp=2, layers_per_stage=split))


def test_more_stages_than_layers_and_unknown_stages_are_input_errors():
    arch = ARCHITECTURES["llama-3.1-8b"]
    with pytest.raises(InputError, match="exceed"):
        stage_layers(arch, Parallel(pp=33))
    with pytest.raises(InputError, match="no such stage"):
        weight_bytes_per_device(arch, Parallel(pp=2), 2)


def test_uneven_stages_follow_the_given_split():
    arch = ARCHITECTURES["llama-3.1-8b"]
    parallel = Parallel(pp=2, layers_per_stage=(20, 12))
    first, second = (kv_bytes_per_token_per_device(arch, parallel, stage) for stage in (0, 1))
    assert (first, second) == (20 * 4096, 12 * 4096)


def test_shared_experts_are_whole_where_vllm_cuts_tokens_instead():
    arch = ARCHITECTURES["deepseek-v3"]
    for tp, dp in product((2, 4), (2, 4)):
        cut = weight_bytes_per_device(arch, Parallel(tp=tp, dp=dp, ep=1), 0)
        whole = weight_bytes_per_device(arch, Parallel(tp=tp, dp=dp, ep=tp * dp), 0)
        shared = 58 * 3 * 7168 * 2048 * (1 + 4 / 128**2)
        assert whole - cut == pytest.approx(shared * (1 - 1 / tp))
