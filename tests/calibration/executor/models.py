"""Tiny architectures, one a layer kind that the executor runs."""

from __future__ import annotations

from dataclasses import replace

from simtool.models.architecture import (
    Attention,
    DenseMlp,
    LatentAttention,
    Layer,
    ModelArchitecture,
    MoeMlp,
    WeightDtypes,
)

HIDDEN, VOCABULARY = 64, 131  # a prime vocabulary is not cut evenly by any degree
GQA = Attention(num_heads=4, num_kv_heads=2, head_dim=16, v_head_dim=16, qkv_bias=True)
MQA = Attention(num_heads=4, num_kv_heads=1, head_dim=16, v_head_dim=16, extra_params=32)  # with norms of the heads
MLA = LatentAttention(
    num_heads=4, q_lora_rank=24, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12
)
DENSE, PLAIN = DenseMlp(intermediate_size=96), DenseMlp(intermediate_size=96, gated=False)
MOE = MoeMlp(num_experts=8, top_k=2, intermediate_size=32, shared_intermediate_size=48)
GROUPED_MOE = replace(MOE, num_groups=4, topk_groups=2, router_bias=True, shared_expert_gate=True)


def model(mixer, mlps, *, tied=False, dtype="fp32"):
    """An architecture of one layer a feed-forward part."""
    groups = ("attention", "mlp", "experts", "shared_experts", "embedding", "lm_head", "recurrent", "other")
    return ModelArchitecture(
        name="tiny",
        hidden_size=HIDDEN,
        vocab_size=VOCABULARY,
        layers=tuple(Layer(mixer=mixer, mlp=mlp, norm_params=2 * HIDDEN) for mlp in mlps),
        tie_word_embeddings=tied,
        max_position_embeddings=512,
        dtypes=WeightDtypes(**dict.fromkeys(groups, dtype)),
        kv_dtype=dtype,
        activation_dtype=dtype,
        final_norm_params=HIDDEN,
    )


MODELS = {
    "gqa": model(GQA, [DENSE, PLAIN, DENSE]),
    "tied": model(MQA, [DENSE, DENSE], tied=True),
    "moe": model(GQA, [DENSE, MOE, MOE]),
    "grouped_moe": model(GQA, [GROUPED_MOE, GROUPED_MOE]),
    "mla": model(MLA, [DENSE, MOE]),
    "mla_direct": model(replace(MLA, q_lora_rank=0), [DENSE, DENSE]),
}
