"""Laws of lowering: work is conserved when it is cut, and adds up to what a model's parameters say."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.hardware.received_experts import gathered_experts, local_experts
from simtool.models.architecture import Attention, LatentAttention, MoeMlp, RecurrentMixer, SparseIndexer
from simtool.models.lowering import head_operators, lower, token_operators
from simtool.models.lowering_attention import _pairs, decode_operators, prefill_operators
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import make_shard
from simtool.models.memory import kv_bytes_per_token, weight_bytes
from simtool.models.operators import Operator, StepBatch
from simtool.models.parameters import parameter_counts
from simtool.models.routing.reach import reached_share, touched_experts
from simtool.plan import Parallel
from tests.lowering.synthetic import dense, llama_8b, llama_70b, mixture, one_mixer


def batch(prefill=0.0, chunks=0.0, context=0.0, decodes=0.0, kv=0.0, ranks=1, sampled=None) -> StepBatch:
    columns = [prefill, chunks, context, decodes, decodes * kv, (prefill + decodes) * ranks]
    arrays = [np.array([float(value)]) for value in columns]
    return StepBatch(
        prefill_tokens=arrays[0],
        prefill_requests=arrays[1],
        prefill_context=arrays[2],
        decode_requests=arrays[3],
        decode_kv_tokens=arrays[4],
        total_tokens=arrays[5],
        sampled=np.array([float(chunks + decodes if sampled is None else sampled)]),
    )


def total(operators: list[Operator], field: str) -> float:
    return float(sum(operator.count * getattr(operator, field)[0] for operator in operators))


def named(operators: list[Operator], name: str) -> Operator:
    return next(operator for operator in operators if operator.name == name)


def test_llama_8b_prefill_flops_are_two_a_parameter_and_token():
    arch, tokens = llama_8b(), 2048
    counts = parameter_counts(arch)
    operators = lower(arch, Parallel(), 0, batch(prefill=tokens, chunks=1, sampled=tokens))
    attention = named(operators, "attention_prefill")
    matrices = counts.total - counts.embedding
    assert total(operators, "flops") - attention.count * attention.flops[0] == pytest.approx(
        2 * matrices * tokens, rel=1e-3
    )
    # scores and values of 32 layers x 32 heads x 128, half of the square
    assert attention.count * attention.flops[0] == pytest.approx(32 * 4 * 32 * 128 * tokens * (tokens + 1) / 2)


@pytest.mark.parametrize("kv", [128, 4096])
def test_decode_bytes_are_weights_and_cache(kv):
    arch = llama_8b()
    operators = lower(arch, Parallel(), 0, batch(decodes=16, kv=kv))
    embedding = arch.vocab_size * arch.hidden_size * 2
    expected = weight_bytes(arch) - embedding + 16 * kv * kv_bytes_per_token(arch)
    assert total(operators, "hbm_bytes") == pytest.approx(expected, rel=0.02)


@given(tp=st.sampled_from([2, 4, 8]), tokens=st.integers(1, 4096), decodes=st.integers(1, 64), kv=st.integers(1, 9000))
def test_tensor_parallel_ranks_share_the_flops_of_a_dense_model(tp, tokens, decodes, kv):
    step = batch(prefill=tokens, chunks=1, decodes=decodes, kv=kv)
    whole = total(lower(llama_8b(), Parallel(), 0, step), "flops")
    assert tp * total(lower(llama_8b(), Parallel(tp=tp), 0, step), "flops") == pytest.approx(whole, rel=1e-12)


def test_pipeline_stages_share_the_work():
    step = batch(prefill=512, chunks=2, decodes=8, kv=100)
    whole = lower(llama_70b(), Parallel(), 0, step)
    parts = [lower(llama_70b(), Parallel(pp=3), stage, step) for stage in range(3)]
    assert sum(total(part, "flops") for part in parts) == pytest.approx(total(whole, "flops"), rel=1e-12)
    names = [{operator.name for operator in part} for part in parts]
    assert "embedding" in names[0]
    assert "stage_send" in names[0]
    assert "lm_head" not in names[0]
    assert "lm_head" in names[2]
    assert "stage_send" not in names[2]
    assert "embedding" not in names[2]


@given(first=st.integers(1, 3000), second=st.integers(1, 3000), latent=st.booleans())
def test_splitting_a_batch_never_lowers_bytes(first, second, latent):
    arch = mixture(latent=latent)

    def moved(tokens: int) -> float:
        return total(
            lower(arch, Parallel(tp=2), 0, batch(prefill=tokens, chunks=1, decodes=tokens, kv=64)), "hbm_bytes"
        )

    assert moved(first) + moved(second) >= moved(first + second)


@pytest.mark.parametrize("ep", [1, 2, 8])
def test_expert_parallelism_keeps_routed_flops(ep):
    whole = make_shard(mixture(), Parallel(), 0)
    cut = make_shard(mixture(), Parallel(tp=2, dp=4, ep=ep), 0)
    tokens = np.array([640.0])
    alone, part = (named(expert_operators(shard, tokens), "experts") for shard in (whole, cut))
    assert 8 * part.flops[0] == pytest.approx(alone.flops[0])
    assert part.dims["moe_tp"][0] * part.dims["moe_ep"][0] == 8
    assert part.dims["tokens"][0] == 640


def test_many_tokens_touch_all_experts_and_one_token_its_top_k():
    mlp = next(mlp for mlp, _, _ in make_shard(mixture(), Parallel(), 0).mlps if isinstance(mlp, MoeMlp))
    touched = touched_experts(mlp, np.array([0.0, 1.0, 1e5]))
    assert touched.tolist() == pytest.approx([0.0, 4.0, 64.0])
    assert 64 * reached_share(mlp, 64) == pytest.approx(4.0)
    assert reached_share(mlp, 1) == pytest.approx(1.0)


def brute_reached(mlp: MoeMlp, parts: int) -> float:
    """Share of all choices that group-limited routing can make which have an expert on the first part."""
    each, found = mlp.num_experts // mlp.num_groups, []
    for groups in combinations(range(mlp.num_groups), mlp.topk_groups):
        pool = [group * each + expert for group in groups for expert in range(each)]
        found += [min(chosen) < mlp.num_experts // parts for chosen in combinations(pool, mlp.top_k)]
    return sum(found) / len(found)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize(("groups", "chosen"), [(1, 1), (3, 2), (6, 3), (12, 4)])
@pytest.mark.parametrize("top_k", [1, 3, 4])
def test_share_of_tokens_that_reach_a_part_is_what_counting_gives(parts, groups, chosen, top_k):
    mlp = MoeMlp(num_experts=12, top_k=top_k, intermediate_size=8, num_groups=groups, topk_groups=chosen)
    if groups % parts and parts % groups and groups > chosen:
        mlp = replace(mlp, num_groups=1, topk_groups=1)  # such parts are taken as ungrouped
        assert reached_share(replace(mlp, num_groups=groups, topk_groups=chosen), parts) == reached_share(mlp, parts)
    assert reached_share(mlp, parts) == pytest.approx(brute_reached(mlp, parts))


def test_grouped_routing_reaches_fewer_devices():
    free = MoeMlp(num_experts=256, top_k=8, intermediate_size=2048)
    grouped = replace(free, num_groups=8, topk_groups=4)
    assert 8 * reached_share(grouped, 8) < 4.0 < 8 * reached_share(free, 8)


@settings(deadline=None)
@given(tokens=st.floats(1, 1e5), ranks=st.sampled_from([(1, 2, 2), (1, 4, 2), (1, 8, 8), (2, 4, 8), (2, 4, 4)]))
def test_sent_tokens_are_the_assignments_of_a_devices_experts(tokens, ranks):
    """Copies that all devices send = tokens that all devices receive; a received token's choices are its local ones."""
    tp, dp, ep = ranks
    parallel, total = Parallel(tp=tp, dp=dp, ep=ep), np.array([tokens])
    sent, gathered = (
        expert_operators(make_shard(mixture(), replace(parallel, all2all_backend=backend), 0), total)
        for backend in ("deepep_high_throughput", "allgather_reducescatter")
    )
    experts, kept = named(sent, "experts"), named(gathered, "experts")
    assert "received" not in kept.dims
    assert gathered_experts(experts).dims == kept.dims
    assert experts.flops == kept.flops
    local = local_experts(experts).dims
    assert local["tokens"] * local["top_k"] == pytest.approx(tokens * kept.dims["top_k"] / ep)
    assert 1.0 - 1e-9 <= local["top_k"][0] <= local["num_experts"][0]
    copies = named(sent, "moe_combine").dims["bytes"][0] * tp * dp / (2 * mixture().hidden_size)
    assert copies == pytest.approx(local["tokens"][0] * tp * dp)


@given(
    new=st.integers(1, 60),
    context=st.integers(0, 60),
    window=st.sampled_from([0, 1, 7, 16, 200]),
    chunked=st.booleans(),
)
def test_pairs_match_counting(new, context, window, chunked):
    def seen(position: int) -> int:
        if not window:
            return position
        return (position - 1) % window + 1 if chunked else min(position, window)

    counted = sum(seen(position) for position in range(context + 1, context + new + 1))
    pairs = _pairs(np.array([float(new)]), np.array([float(context)]), window, chunked=chunked)
    assert pairs[0] == pytest.approx(counted)


def test_a_window_bounds_decode():
    arch = dense(name="w", layers=2, hidden=512, heads=4, kv_heads=2, intermediate=1024, vocab=1000, window=128)
    shard, ones = make_shard(arch, Parallel(), 0), np.ones(2)
    operator = decode_operators(shard, ones, np.array([128.0, 100000.0]))[0]
    assert operator.flops[0] == operator.flops[1]
    assert operator.hbm_bytes[0] == operator.hbm_bytes[1]


def test_kv_heads_are_replicated_below_one_a_rank():
    shard = make_shard(llama_8b(), Parallel(tp=16), 0)
    qkv = named(token_operators(shard, np.ones(1)), "qkv")
    assert qkv.dims["n"][0] == 2 * 128 + 2 * 128  # two query heads, one key head, one value head


def test_mla_decodes_absorbed_and_prefills_expanded():
    arch = mixture(latent=True, layers=1)
    shard, one = make_shard(arch, Parallel(tp=2), 0), np.ones(1)
    decode = decode_operators(shard, one, np.array([1000.0]))[0]
    assert decode.flops[0] == 2 * 16 * (1000 * (512 + 64 + 512) + 512 * (128 + 128))
    assert decode.hbm_bytes[0] == pytest.approx(1000 * 576 * 2 + 2 * 16 * 512 * 256, rel=0.05)
    expand, attend = prefill_operators(shard, one, np.array([100.0]), np.array([50.0]))
    assert expand.flops[0] == 2 * 150 * 512 * 16 * (128 + 128)
    assert attend.flops[0] == 2 * (100 * 50 + 5050) * 16 * (192 + 128)


def test_sparse_attention_reads_topk_and_scores_everything():
    indexer = SparseIndexer(num_heads=4, head_dim=64, topk=256, key_bytes=68)
    mixer = LatentAttention(
        num_heads=16,
        q_lora_rank=256,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        indexer=indexer,
    )
    shard, one = make_shard(one_mixer(mixer), Parallel(), 0), np.ones(1)
    score, attend = decode_operators(shard, one, np.array([5000.0]))
    assert score.flops[0] == 2 * 5000 * 4 * 64
    assert attend.dims["kv_len"][0] == 256
    _, sparse = prefill_operators(shard, one, np.array([100.0]), np.array([5000.0]))
    assert sparse.dims["batch"][0] == 100
    assert sparse.dims["kv_len"][0] == 256
    names = [operator.name for operator in token_operators(shard, one)]
    assert "indexer_q" in names
    assert "indexer_k" in names


def test_sparse_grouped_attention_has_an_indexer_too():
    indexer = SparseIndexer(num_heads=4, head_dim=64, topk=128)
    mixer = Attention(num_heads=8, num_kv_heads=2, head_dim=64, v_head_dim=64, indexer=indexer)
    shard, one = make_shard(one_mixer(mixer), Parallel(), 0), np.ones(1)
    score, attend = decode_operators(shard, one, np.array([4000.0]))
    assert (score.name, attend.dims["kv_len"][0]) == ("indexer", 128)


def test_recurrent_state_is_moved_once_a_sequence():
    mixer = RecurrentMixer(
        kind="mamba2",
        num_heads=8,
        head_dim=64,
        state_elements=8 * 64 * 128,
        conv_elements=0,
        projections=((512, 1024), (512, 512)),
    )
    shard, one = make_shard(one_mixer(mixer), Parallel(tp=2), 0), np.ones(1)
    decode = decode_operators(shard, 4 * one, 999 * one)[0]
    width = (1024 + 512) / 2
    assert decode.hbm_bytes[0] == 2 * 4 * 8 * 64 * 128 * 4 / 2 + 4 * 2 * width
    prefill = prefill_operators(shard, one, 100 * one, 0 * one)[0]
    assert prefill.flops[0] == 100 * 5 * 8 * 64 * 128 / 2


def collectives(arch, parallel, **kwargs):
    operators = lower(arch, parallel, 0, batch(decodes=64, kv=10, ranks=parallel.dp), **kwargs)
    found = [operator for operator in operators if operator.family == "collective"]
    return {operator.name: (operator.collective, operator.count, int(operator.dims["ranks"][0])) for operator in found}


def test_collectives_of_tensor_parallelism():
    found = collectives(llama_8b(), Parallel(tp=4))
    assert found == {
        "embedding_all_reduce": ("all_reduce", 1, 4),
        "tp_all_reduce": ("all_reduce", 64, 4),
        "logits_all_gather": ("all_gather", 1, 4),
    }
    assert collectives(llama_8b(), Parallel()) == {}


def test_collectives_of_expert_parallelism():
    tensor = collectives(mixture(), Parallel(tp=2, ep=2))
    assert tensor["tp_all_reduce"] == ("all_reduce", 8, 2)
    assert "moe_dispatch" not in tensor
    ranks = collectives(mixture(), Parallel(dp=8, ep=8))
    assert ranks == {"moe_dispatch": ("all_gather", 4, 8), "moe_combine": ("reduce_scatter", 4, 8)}
    both = collectives(mixture(), Parallel(tp=2, dp=4, ep=8))
    assert both["moe_dispatch"] == ("all_gather", 4, 8)
    assert both["moe_all_gather"] == ("all_gather", 4, 2)
    assert both["tp_all_reduce"] == ("all_reduce", 4, 2)
    cut = collectives(mixture(), Parallel(tp=2, dp=4))
    assert cut["moe_dispatch"] == ("all_gather", 4, 4)
    assert cut["tp_all_reduce"] == ("all_reduce", 8, 2)
    sent = collectives(mixture(), Parallel(dp=8, ep=8, all2all_backend="deepep_high_throughput"))
    assert sent == {"moe_dispatch": ("dispatch", 4, 8), "moe_combine": ("combine", 4, 8)}
    alone = Parallel(tp=2, ep=2, all2all_backend="deepep_high_throughput")
    assert collectives(mixture(), alone) == tensor  # one rank has nobody to send to


def test_node_spans():
    shard = make_shard(llama_70b(), Parallel(tp=8, pp=2), 0, devices_per_node=8)
    assert (shard.tp_nodes, shard.next_stage_nodes) == (1, 2)
    assert make_shard(llama_70b(), Parallel(tp=16), 0, devices_per_node=8).tp_nodes == 2
    assert make_shard(mixture(), Parallel(dp=16, ep=16), 0, devices_per_node=8).expert_nodes == 2
    assert make_shard(mixture(), Parallel(dp=16, ep=16), 0).expert_nodes == 1


def test_quantised_weights_move_fewer_bytes_and_keep_flops():
    one = batch(decodes=1, kv=1)
    wide, narrow = lower(llama_8b(), Parallel(), 0, one), lower(llama_8b("fp8"), Parallel(), 0, one)
    assert total(wide, "flops") == total(narrow, "flops")
    assert named(narrow, "qkv").dtype == "fp8"
    assert named(narrow, "qkv").hbm_bytes[0] == pytest.approx(named(wide, "qkv").hbm_bytes[0] / 2, rel=0.01)


def test_head_is_cut_over_the_vocabulary():
    shard = make_shard(llama_8b(), Parallel(tp=2), 0)
    assert named(head_operators(shard, np.array([3.0])), "lm_head").dims["n"][0] == 128256 / 2


@pytest.mark.parametrize(
    ("parallel", "stage"),
    [(Parallel(tp=3), 0), (Parallel(tp=64), 0), (Parallel(pp=2), 2), (Parallel(tp=2, ep=3), 0)],
)
def test_what_cannot_be_cut_is_refused(parallel, stage):
    with pytest.raises(InputError):
        make_shard(mixture(), parallel, stage)
