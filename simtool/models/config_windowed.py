"""Mixture-of-experts families with unlike attention layers: llama4, mimo_v2_flash, step3p5, minimax_m2/m3, glm4_moe."""

from __future__ import annotations

from dataclasses import replace

from simtool.models.architecture import Attention, DenseMlp, FeedForward, Layer, MoeMlp, SparseIndexer
from simtool.models.config_attention import grouped_attention, layer_windows
from simtool.models.config_dense import Decoder
from simtool.models.config_fields import ConfigFields
from simtool.models.config_moe import deepseek_experts


def llama4_decoder(fields: ConfigFields) -> Decoder:
    """Llama 4: chunked attention except every fourth layer, one shared expert as wide as a routed one.

    Llama4TextConfig: no_rope_layer_interval 4; moe_layers every interleave_moe_layer_step-th layer; q/k norms have no
    weights.
    """
    hidden, count = fields.size("hidden_size"), fields.layers()
    interval = fields.size("no_rope_layer_interval", default=4)
    # no_rope_layers holds 1 for a layer WITH rotary positions, which is the chunked kind.
    chunked = [int((index + 1) % interval != 0) for index in range(count)]
    if fields.has("no_rope_layers") and fields.data["no_rope_layers"]:
        chunked = fields.sizes("no_rope_layers", count)
    step = fields.size("interleave_moe_layer_step")
    routed = set(fields.sizes("moe_layers") if fields.has("moe_layers") else range(step - 1, count, step))
    bias = fields.flag("attention_bias", default=False)
    window = fields.size("attention_chunk_size")
    width = fields.size("intermediate_size")
    experts = MoeMlp(
        num_experts=fields.size("num_local_experts"),
        top_k=fields.size("num_experts_per_tok"),
        intermediate_size=width,
        shared_intermediate_size=width,
    )
    dense = DenseMlp(intermediate_size=fields.size("intermediate_size_mlp"))
    full = grouped_attention(fields, qkv_bias=bias, out_bias=bias)
    layers = tuple(
        Layer(
            mixer=replace(full, window=window, chunked=True) if chunked[index] else full,
            mlp=experts if index in routed else dense,
            norm_params=2 * hidden,
        )
        for index in range(count)
    )
    return Decoder(layers=layers, final_norm_params=hidden)


def minimax_m2_decoder(fields: ConfigFields) -> Decoder:
    """MiniMax-M2: full attention with one q/k norm weight a channel; experts everywhere with a routing bias.

    The released checkpoints hold no MTP weights, whatever num_mtp_modules says.
    """
    hidden, count = fields.size("hidden_size"), fields.layers()
    if fields.has("attn_type_list") and set(fields.sizes("attn_type_list", count)) != {1}:
        raise fields.unsupported("attn_type_list", "0 (lightning attention)", "only 1 (softmax attention)")
    fields.refuse("shared_intermediate_size")
    fields.refuse("qk_norm_type", "per_layer")
    norm = fields.flag("use_qk_norm", default=True)
    attention = grouped_attention(fields, qk_norm="layer" if norm else "none")
    mlp = MoeMlp(
        num_experts=fields.size("num_local_experts"),
        top_k=fields.size("num_experts_per_tok"),
        intermediate_size=fields.size("intermediate_size"),
        router_bias=fields.flag("use_routing_bias", default=True),
    )
    layer = Layer(mixer=attention, mlp=mlp, norm_params=2 * hidden)
    return Decoder(layers=(layer,) * count, final_norm_params=hidden)


def minimax_m3_decoder(fields: ConfigFields) -> Decoder:
    """MiniMax-M3: GQA with q/k norms a head, block-sparse in the layers sparse_attention_freq marks.

    Dense layers first, then routed experts and a shared one. MTP modules are not counted.
    """
    hidden, count = fields.size("hidden_size"), fields.layers()
    fields.refuse("attention_output_gate")
    fields.refuse("qk_norm_type", "per_head")
    attention = grouped_attention(fields, qk_norm="head" if fields.flag("use_qk_norm", default=True) else "none")
    sparse = replace(attention, indexer=_block_indexer(fields))
    marks = fields.child("sparse_attention_config").sizes("sparse_attention_freq", count)
    dense = DenseMlp(intermediate_size=fields.size("dense_intermediate_size"))
    experts = MoeMlp(
        num_experts=fields.size("num_local_experts"),
        top_k=fields.size("num_experts_per_tok"),
        intermediate_size=fields.size("moe_intermediate_size", "intermediate_size"),
        shared_intermediate_size=fields.size("shared_intermediate_size") * fields.size("n_shared_experts", default=1),
        router_bias=fields.flag("use_routing_bias", default=True),
    )
    routed = fields.sizes("moe_layer_freq", count)
    layers = tuple(
        Layer(mixer=sparse if mark else attention, mlp=experts if expert else dense, norm_params=2 * hidden)
        for mark, expert in zip(marks, routed, strict=True)
    )
    return Decoder(layers=layers, final_norm_params=hidden)


def _block_indexer(fields: ConfigFields) -> SparseIndexer:
    """MiniMaxM3VLIndexer: q_proj (hidden → heads × dim), k_proj (hidden → dim), a norm on each; bf16 index keys."""
    sparse = fields.child("sparse_attention_config")
    if not sparse.flag("use_sparse_attention", default=True):
        raise sparse.unsupported("use_sparse_attention", False)
    if sparse.has("sparse_disable_index_value"):
        pairs = zip(sparse.sizes("sparse_disable_index_value"), sparse.sizes("sparse_attention_freq"), strict=False)
        if any(used and not disabled for disabled, used in pairs):
            raise sparse.unsupported("sparse_disable_index_value", 0, "the indexer's value path is not modelled")
    heads, dim = sparse.size("sparse_num_index_heads"), sparse.size("sparse_index_dim")
    block = sparse.size("sparse_block_size")
    return SparseIndexer(
        num_heads=heads,
        head_dim=dim,
        topk=block * sparse.size("sparse_topk_blocks"),
        block_size=block,
        params=fields.size("hidden_size") * (heads + 1) * dim + 2 * dim,
        key_bytes=2 * dim,
    )


def mimo_v2_decoder(fields: ConfigFields) -> Decoder:
    """MiMo-V2-Flash: full and sliding layers with their own heads; sinks where the config adds them."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    fields.refuse("attention_bias")
    sliding = fields.sizes("hybrid_layer_pattern", count)
    routed = fields.sizes("moe_layer_freq", count)
    full, windowed = _mimo_attention(fields, ""), _mimo_attention(fields, "swa_")
    layers = tuple(
        Layer(
            mixer=windowed if sliding[index] else full,
            mlp=deepseek_experts(fields) if routed[index] else _dense(fields),
            norm_params=2 * hidden,
        )
        for index in range(count)
    )
    return Decoder(layers=layers, final_norm_params=hidden)


def _mimo_attention(fields: ConfigFields, prefix: str) -> Attention:
    heads = fields.size(f"{prefix}num_attention_heads")
    sinks = fields.flag("add_swa_attention_sink_bias" if prefix else "add_full_attention_sink_bias", default=False)
    return Attention(
        num_heads=heads,
        num_kv_heads=fields.size(f"{prefix}num_key_value_heads"),
        head_dim=fields.size(f"{prefix}head_dim"),
        v_head_dim=fields.size(f"{prefix}v_head_dim"),
        window=fields.size("sliding_window") if prefix else 0,
        extra_params=heads if sinks else 0,
    )


def step_decoder(fields: ConfigFields) -> Decoder:
    """Step-3.5/3.7-Flash: sliding layers with more heads than full ones, a gate a head, q/k norms a head.

    The head count of sliding layers (`num_sliding_attention_heads`, or `attention_other_setting` of older files) must
    be given: the released models have 96 there and 64 in full layers.
    """
    hidden, count = fields.size("hidden_size"), fields.layers()
    extra = fields.extra_layers("num_nextn_predict_layers")
    if fields.has("num_sliding_attention_heads"):
        sliding_heads = fields.size("num_sliding_attention_heads")
    elif fields.has("attention_other_setting"):
        sliding_heads = fields.child("attention_other_setting").size("num_attention_heads")
    else:
        sliding_heads = fields.size("num_sliding_attention_heads", "attention_other_setting")
    kinds = fields.texts("layer_types")[: count + extra]
    windows = layer_windows(_with(fields, layer_types=kinds[:count]), count, fields.size("sliding_window"))
    layers = tuple(
        Layer(
            mixer=_step_attention(fields, window, sliding_heads if window else fields.size("num_attention_heads")),
            mlp=_step_feed_forward(fields, index),
            norm_params=2 * hidden,
        )
        for index, window in enumerate(windows)
    )
    return Decoder(layers=layers, final_norm_params=hidden)


def _step_attention(fields: ConfigFields, window: int, heads: int) -> Attention:
    head_dim = fields.size("head_dim")
    return Attention(
        num_heads=heads,
        num_kv_heads=fields.size("num_key_value_heads", "num_attention_groups"),
        head_dim=head_dim,
        v_head_dim=head_dim,
        window=window,
        extra_params=2 * head_dim + fields.size("hidden_size") * heads,
    )


def _step_feed_forward(fields: ConfigFields, index: int) -> FeedForward:
    """Experts from layer 3 on unless the file lists them (Step3p7TextConfig)."""
    routed = index >= 3
    if fields.has("mlp_layer_types"):
        kinds = fields.texts("mlp_layer_types", allowed=("dense", "sparse"))
        if len(kinds) < fields.layers():
            raise fields.unsupported("mlp_layer_types", len(kinds), f"one for each of the {fields.layers()} layers")
        routed = kinds[index] == "sparse"
    elif fields.has("moe_layers_enum"):
        found = fields.data["moe_layers_enum"]
        listed = found.split(",") if isinstance(found, str) else fields.sizes("moe_layers_enum")
        routed = str(index) in {str(item).strip() for item in listed}
    if not routed:
        return _dense(fields)
    return MoeMlp(
        num_experts=fields.size("n_routed_experts", "moe_num_experts", "num_experts"),
        top_k=fields.size("num_experts_per_tok", "moe_top_k"),
        intermediate_size=fields.size("moe_intermediate_size"),
        shared_intermediate_size=fields.size("share_expert_dim", "share_expert_dims"),
        router_bias=True,
    )


def glm4_moe_decoder(fields: ConfigFields) -> Decoder:
    """GLM-4.5 and 4.6: biased q, k, v, optional q/k norms, dense first layers, shared experts, MTP blocks."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    norm = fields.flag("use_qk_norm", default=False)
    attention = grouped_attention(
        fields, qkv_bias=fields.flag("attention_bias", default=False), qk_norm="head" if norm else "none"
    )
    first = fields.size("first_k_dense_replace", minimum=0)
    experts = deepseek_experts(fields)
    layers = tuple(
        Layer(mixer=attention, mlp=_dense(fields) if index < first else experts, norm_params=2 * hidden)
        for index in range(count)
    )
    extra = fields.extra_layers("num_nextn_predict_layers")
    return Decoder(
        layers=layers,
        final_norm_params=hidden,
        mtp_layers=(Layer(mixer=attention, mlp=experts, norm_params=2 * hidden),) * extra,
        mtp_params=extra * (2 * hidden * hidden + 3 * hidden),
    )


def _dense(fields: ConfigFields) -> DenseMlp:
    return DenseMlp(intermediate_size=fields.size("intermediate_size"))


def _with(fields: ConfigFields, **keys: object) -> ConfigFields:
    return replace(fields, data={**fields.data, **keys})
