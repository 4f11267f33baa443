"""Softmax attention of the Hugging Face families: heads, windows, biases and norms as the config states them."""

from __future__ import annotations

from typing import Literal

from simtool.models.architecture import Attention, LatentAttention, SparseIndexer
from simtool.models.config_fields import REQUIRED, ConfigFields

QkNorm = Literal["none", "head", "layer"]
FULL, SLIDING = "full_attention", "sliding_attention"


def grouped_attention(
    fields: ConfigFields,
    *,
    window: int = 0,
    chunked: bool = False,
    qkv_bias: bool = False,
    out_bias: bool = False,
    qk_norm: QkNorm = "none",
    output_gate: bool = False,
    sinks: bool = False,
    kv_heads_default: object = REQUIRED,
) -> Attention:
    """GQA. head_dim defaults to hidden_size / num_attention_heads, as in every transformers class used with it here.

    qk_norm: "head" has one weight of head_dim for queries and one for keys; "layer" has one a head.
    """
    heads = fields.size("num_attention_heads")
    kv_heads = fields.size("num_key_value_heads", default=heads if kv_heads_default is None else kv_heads_default)
    head_dim = head_size(fields, heads)
    norms = {"none": 0, "head": 2 * head_dim, "layer": (heads + kv_heads) * head_dim}[qk_norm]
    return Attention(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        v_head_dim=head_dim,
        window=window,
        chunked=chunked,
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        output_gate=output_gate,
        extra_params=norms + (heads if sinks else 0),
    )


def head_size(fields: ConfigFields, heads: int) -> int:
    """`head_dim`, or hidden_size / heads where it is not given. Raises InputError where that is not whole."""
    if fields.has("head_dim"):
        return fields.size("head_dim")
    hidden = fields.size("hidden_size")
    if hidden % heads:
        raise fields.unsupported("num_attention_heads", heads, f"hidden_size {hidden} is not a multiple; give head_dim")
    return hidden // heads


def latent_attention(fields: ConfigFields, indexer: SparseIndexer | None = None) -> LatentAttention:
    """MLA (transformers DeepseekV3Config and those derived from it). q_lora_rank null: no query compression."""
    fields.refuse("attention_bias")
    return LatentAttention(
        num_heads=fields.size("num_attention_heads"),
        q_lora_rank=fields.size("q_lora_rank", default=0, minimum=0),
        kv_lora_rank=fields.size("kv_lora_rank"),
        qk_nope_head_dim=fields.size("qk_nope_head_dim"),
        qk_rope_head_dim=fields.size("qk_rope_head_dim"),
        v_head_dim=fields.size("v_head_dim"),
        indexer=indexer,
    )


def lightning_indexer(fields: ConfigFields, *, shared: bool = False) -> SparseIndexer:
    """Indexer of DeepSeek sparse attention (transformers deepseek_v32, glm_moe_dsa).

    Weights: wq_b (q_lora_rank → heads × dim), wk (hidden → dim), LayerNorm on keys (2 × dim), weights_proj
    (hidden → heads). Its key cache holds fp8 keys and one fp32 scale a 128 (vllm DeepseekV32IndexerCache).
    """
    heads, dim = fields.size("index_n_heads"), fields.size("index_head_dim")
    hidden, rank = fields.size("hidden_size"), fields.size("q_lora_rank")
    params = rank * heads * dim + hidden * dim + 2 * dim + hidden * heads
    return SparseIndexer(
        num_heads=heads,
        head_dim=dim,
        topk=fields.size("index_topk"),
        shared=shared,
        params=0 if shared else params,
        key_bytes=0 if shared else dim + 4 * -(-dim // 128),
    )


def layer_windows(fields: ConfigFields, count: int, window: int, *, full_every: int = 0) -> list[int]:
    """Window of each layer from `layer_types` (transformers): 0 for full attention.

    full_every: where the family's class has that default without `layer_types`: every n-th layer is full.
    """
    if full_every and not fields.has("layer_types"):
        return [0 if (index + 1) % full_every == 0 else window for index in range(count)]
    kinds = fields.texts("layer_types", count, (FULL, SLIDING))
    return [window if kind == SLIDING else 0 for kind in kinds]
