"""Mixture-of-experts families with softmax attention or MLA. Layers from their config keys."""

from __future__ import annotations

from simtool.models.architecture import DenseMlp, FeedForward, Layer, MoeMlp
from simtool.models.config_attention import grouped_attention, latent_attention, layer_windows, lightning_indexer
from simtool.models.config_dense import Decoder, qwen_windows
from simtool.models.config_fields import ConfigFields


def mixtral_decoder(fields: ConfigFields) -> Decoder:
    """Mixtral: experts in every layer, no biases."""
    hidden = fields.size("hidden_size")
    window = fields.size("sliding_window", default=0, minimum=0)
    mlp = MoeMlp(
        num_experts=fields.size("num_local_experts"),
        top_k=fields.size("num_experts_per_tok"),
        intermediate_size=fields.size("intermediate_size"),
    )
    layer = Layer(mixer=grouped_attention(fields, window=window), mlp=mlp, norm_params=2 * hidden)
    return Decoder(layers=(layer,) * fields.layers(), final_norm_params=hidden)


def phimoe_decoder(fields: ConfigFields) -> Decoder:
    """Phi-3.5-MoE: Mixtral with biases on q, k, v, o, LayerNorms of two vectors and a biased LM head."""
    hidden = fields.size("hidden_size")
    decoder = mixtral_decoder(fields)
    bias = fields.flag("attention_bias", default=False)
    window = fields.size("sliding_window", default=0, minimum=0)
    if window >= fields.size("max_position_embeddings"):
        window = 0
    attention = grouped_attention(fields, window=window, qkv_bias=bias, out_bias=bias)
    layer = Layer(mixer=attention, mlp=decoder.layers[0].mlp, norm_params=4 * hidden)
    head_bias = fields.size("vocab_size") if fields.flag("lm_head_bias", default=False) else 0
    return Decoder(layers=(layer,) * len(decoder.layers), final_norm_params=2 * hidden + head_bias)


def qwen_moe_decoder(fields: ConfigFields) -> Decoder:
    """Qwen2-MoE and Qwen3-MoE (and Qwen3-VL-MoE's text): dense layers where mlp_only_layers or the step says so."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    second = fields.text("model_type") == "qwen2_moe"
    bias = fields.flag("qkv_bias" if second else "attention_bias", default=second)
    layers = []
    for index, window in enumerate(qwen_windows(fields, count)):
        attention = grouped_attention(
            fields, window=window, qkv_bias=bias, out_bias=bias and not second, qk_norm="none" if second else "head"
        )
        layers.append(Layer(mixer=attention, mlp=qwen_feed_forward(fields, index), norm_params=2 * hidden))
    return Decoder(layers=tuple(layers), final_norm_params=hidden)


def qwen_feed_forward(fields: ConfigFields, index: int) -> FeedForward:
    """Experts, or a dense MLP in the layers that the config names (Qwen3MoeConfig: step 1, no dense layers)."""
    step = fields.size("decoder_sparse_step", default=1)
    dense = fields.sizes("mlp_only_layers") if fields.has("mlp_only_layers") else []
    if index in dense or (index + 1) % step:
        return DenseMlp(intermediate_size=fields.size("intermediate_size"))
    shared = fields.size("shared_expert_intermediate_size", default=0, minimum=0)
    return MoeMlp(
        num_experts=fields.size("num_experts"),
        top_k=fields.size("num_experts_per_tok"),
        intermediate_size=fields.size("moe_intermediate_size"),
        shared_intermediate_size=shared,
        shared_expert_gate=shared > 0,
    )


def gpt_oss_decoder(fields: ConfigFields) -> Decoder:
    """gpt-oss: biases on attention, experts and router, one learned sink a head, alternating windows."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    bias = fields.flag("attention_bias", default=True)
    mlp = MoeMlp(
        num_experts=fields.size("num_local_experts"),
        top_k=fields.size("num_experts_per_tok", "experts_per_token"),
        intermediate_size=fields.size("intermediate_size"),
        bias=True,
        router_bias=True,
    )
    layers = tuple(
        Layer(
            mixer=grouped_attention(fields, window=window, qkv_bias=bias, out_bias=bias, sinks=True),
            mlp=mlp,
            norm_params=2 * hidden,
        )
        for window in layer_windows(fields, count, fields.size("sliding_window"), full_every=2)
    )
    return Decoder(layers=layers, final_norm_params=hidden)


def deepseek_decoder(fields: ConfigFields) -> Decoder:
    """DeepSeek V2/V3/R1/V3.2, Kimi-K2 and GLM-5: MLA, dense first layers, routed and shared experts, MTP blocks."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    sparse = fields.has("index_topk")
    shared = [kind == "shared" for kind in indexer_kinds(fields, count)]
    layers = []
    for index in range(count):
        indexer = lightning_indexer(fields, shared=shared[index]) if sparse else None
        attention = latent_attention(fields, indexer)
        layers.append(Layer(mixer=attention, mlp=_deepseek_feed_forward(fields, index), norm_params=2 * hidden))
    extra = fields.extra_layers("num_nextn_predict_layers")
    mtp = Layer(
        mixer=latent_attention(fields, lightning_indexer(fields) if sparse else None),
        mlp=deepseek_experts(fields),
        norm_params=2 * hidden,
    )
    # eh_proj (2 hidden → hidden), enorm, hnorm and the shared head's norm (DeepSeek-V3 report, section 2.2).
    mtp_params = extra * (2 * hidden * hidden + 3 * hidden)
    return Decoder(layers=tuple(layers), final_norm_params=hidden, mtp_layers=(mtp,) * extra, mtp_params=mtp_params)


def indexer_kinds(fields: ConfigFields, count: int) -> list[str]:
    """Of each layer, whether its sparse-attention indexer is its own ("full") or an earlier layer's ("shared")."""
    if fields.has("indexer_types"):
        return fields.texts("indexer_types", count, ("full", "shared"))
    for key in ("index_topk_pattern", "index_topk_freq"):
        if fields.has(key) and fields.data[key] != 1:
            raise fields.unsupported(key, fields.data[key], "give indexer_types, one a layer")
    return ["full"] * count


def deepseek_experts(fields: ConfigFields) -> MoeMlp:
    """Routed experts with group-limited routing; topk_method noaux_tc has a correction bias an expert."""
    width = fields.size("moe_intermediate_size")
    method = fields.text("topk_method", default="noaux_tc")
    if method not in ("noaux_tc", "greedy", "group_limited_greedy"):
        raise fields.unsupported("topk_method", method)
    return MoeMlp(
        num_experts=fields.size("n_routed_experts"),
        top_k=fields.size("num_experts_per_tok"),
        intermediate_size=width,
        shared_intermediate_size=width * fields.size("n_shared_experts", default=0, minimum=0),
        router_bias=method == "noaux_tc",
        num_groups=fields.size("n_group", default=1),
        topk_groups=fields.size("topk_group", default=1),
    )


def _deepseek_feed_forward(fields: ConfigFields, index: int) -> FeedForward:
    if fields.has("mlp_layer_types"):
        kinds = fields.texts("mlp_layer_types", fields.layers(), ("dense", "sparse"))
        dense = kinds[index] == "dense"
    else:
        step = fields.size("moe_layer_freq", default=1)
        dense = index < fields.size("first_k_dense_replace", minimum=0) or index % step != 0
    if dense:
        return DenseMlp(intermediate_size=fields.size("intermediate_size"))
    return deepseek_experts(fields)
