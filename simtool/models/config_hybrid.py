"""Hybrids: Qwen3-Next/3.5 (gated delta net), Nemotron-H (Mamba-2), Kimi Linear (KDA), and pruned Nemotron-NAS."""

from __future__ import annotations

from dataclasses import replace

from simtool.models.architecture import Attention, DenseMlp, FeedForward, Layer, MoeMlp, RecurrentMixer
from simtool.models.config_attention import FULL, grouped_attention, latent_attention
from simtool.models.config_dense import Decoder
from simtool.models.config_fields import MAX_LAYERS, ConfigFields
from simtool.models.config_moe import qwen_feed_forward

LINEAR = "linear_attention"
_STATE_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def qwen_hybrid_decoder(fields: ConfigFields) -> Decoder:
    """Qwen3-Next and Qwen3.5: gated delta nets, every full_attention_interval-th layer gated softmax attention."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    interval = fields.size("full_attention_interval", default=4)
    kinds = [FULL if (index + 1) % interval == 0 else LINEAR for index in range(count)]
    if fields.has("layer_types"):
        kinds = fields.texts("layer_types", count, (FULL, LINEAR))
    bias = fields.flag("attention_bias", default=False)
    # Qwen3_5Attention and Qwen3NextAttention always double the query projection; files may say so.
    if not fields.flag("attn_output_gate", default=True):
        raise fields.unsupported("attn_output_gate", False)
    softmax = grouped_attention(fields, qkv_bias=bias, out_bias=bias, qk_norm="head", output_gate=True)
    delta = gated_delta_net(fields)
    layers = tuple(
        Layer(mixer=softmax if kind == FULL else delta, mlp=_qwen_mlp(fields, index), norm_params=2 * hidden)
        for index, kind in enumerate(kinds)
    )
    extra = fields.extra_layers("mtp_num_hidden_layers")
    block = Layer(mixer=softmax, mlp=_qwen_mlp(fields, count - 1), norm_params=2 * hidden)
    # One fc (2 hidden → hidden) and three norms, whatever the number of MTP layers (vllm qwen3_next_mtp.py).
    return Decoder(
        layers=layers,
        final_norm_params=hidden,
        mtp_layers=(block,) * extra,
        mtp_params=2 * hidden * hidden + 3 * hidden if extra else 0,
    )


def _qwen_mlp(fields: ConfigFields, index: int) -> FeedForward:
    if fields.has("num_experts"):
        return qwen_feed_forward(fields, index)
    return DenseMlp(intermediate_size=fields.size("intermediate_size"))


def gated_delta_net(fields: ConfigFields) -> RecurrentMixer:
    """Gated delta net (transformers Qwen3_5GatedDeltaNet): state key_dim × value_dim a value head.

    The state dtype is mamba_ssm_dtype where given, else the model's (vLLM gated_delta_net_state_dtype, "auto").
    """
    hidden = fields.size("hidden_size")
    key_heads, heads = fields.size("linear_num_key_heads"), fields.size("linear_num_value_heads")
    key_size, value_size = fields.size("linear_key_head_dim"), fields.size("linear_value_head_dim")
    kernel = fields.size("linear_conv_kernel_dim")
    convolved = 2 * key_heads * key_size + heads * value_size
    return RecurrentMixer(
        kind="gated_delta_net",
        num_heads=heads,
        head_dim=value_size,
        state_elements=heads * key_size * value_size,
        conv_elements=convolved * (kernel - 1),
        projections=(
            (hidden, convolved + heads * value_size),
            (hidden, 2 * heads),
            (heads * value_size, hidden),
        ),
        extra_params=convolved * kernel + 2 * heads + value_size,
        state_dtype=_state_dtype(fields, "mamba_ssm_dtype", "bfloat16"),
    )


def nemotron_h_decoder(fields: ConfigFields) -> Decoder:
    """Nemotron-H and Nemotron 3: one mixer or one feed-forward part a layer, as the pattern says."""
    hidden = fields.size("hidden_size")
    fields.refuse("use_bias")
    fields.refuse("mamba_proj_bias")
    fields.refuse("attention_bias")
    fields.refuse("sliding_window")
    kinds = _block_kinds(fields, "layers_block_type", "hybrid_override_pattern")
    if fields.has("num_hidden_layers") and fields.layers() != len(kinds):
        raise fields.unsupported("num_hidden_layers", fields.layers(), f"the pattern has {len(kinds)} layers")
    extra = fields.extra_layers("num_nextn_predict_layers")
    mtp = _block_kinds(fields, "mtp_layers_block_type", "mtp_hybrid_override_pattern") if extra else []
    return Decoder(
        layers=tuple(_nemotron_layer(fields, kind) for kind in kinds),
        final_norm_params=hidden,
        mtp_layers=tuple(_nemotron_layer(fields, kind) for kind in mtp) * extra,
        mtp_params=extra * (2 * hidden * hidden + 3 * hidden),
    )


def _block_kinds(fields: ConfigFields, list_key: str, pattern_key: str) -> list[str]:
    known = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}
    if fields.has(list_key):
        return fields.texts(list_key, allowed=tuple(known.values()))
    pattern = fields.text(pattern_key)
    unknown = sorted(set(pattern) - set(known))
    if unknown or not 0 < len(pattern) <= MAX_LAYERS:
        raise fields.unsupported(pattern_key, "".join(unknown) or len(pattern), "layer kinds M, E, * and -")
    return [known[letter] for letter in pattern]


def _nemotron_layer(fields: ConfigFields, kind: str) -> Layer:
    norm = fields.size("hidden_size")
    match kind:
        case "mamba":
            return Layer(mixer=mamba2(fields), mlp=None, norm_params=norm)
        case "attention":
            head_dim = fields.size("head_dim", "attention_head_dim")
            mixer = grouped_attention(replace(fields, data={**fields.data, "head_dim": head_dim}))
            return Layer(mixer=mixer, mlp=None, norm_params=norm)
        case "mlp":
            bias = fields.flag("mlp_bias", default=False)
            mlp = DenseMlp(intermediate_size=fields.size("intermediate_size"), gated=False, bias=bias)
            return Layer(mixer=None, mlp=mlp, norm_params=norm)
        case _:
            return Layer(mixer=None, mlp=_nemotron_experts(fields), norm_params=norm)


def _nemotron_experts(fields: ConfigFields) -> MoeMlp:
    """Ungated (relu²) experts, in a latent width where moe_latent_size is given; a correction bias an expert."""
    fields.refuse("mlp_bias")
    shared = fields.size("n_shared_experts", default=1, minimum=0)
    return MoeMlp(
        num_experts=fields.size("n_routed_experts"),
        top_k=fields.size("num_experts_per_tok"),
        intermediate_size=fields.size("moe_intermediate_size"),
        shared_intermediate_size=fields.size("moe_shared_expert_intermediate_size") if shared else 0,
        gated=False,
        shared_gated=False,
        router_bias=True,
        num_groups=fields.size("n_group", default=1),
        topk_groups=fields.size("topk_group", default=1),
        latent_size=fields.size("moe_latent_size", default=0, minimum=0),
    )


def mamba2(fields: ConfigFields) -> RecurrentMixer:
    """Mamba-2 (transformers NemotronHMamba2Mixer). State dtype: mamba_ssm_cache_dtype, float32 in the class."""
    hidden, heads = fields.size("hidden_size"), fields.size("mamba_num_heads")
    head_dim, state = fields.size("mamba_head_dim"), fields.size("ssm_state_size")
    groups, kernel = fields.size("n_groups", "mamba_n_groups"), fields.size("conv_kernel", "mamba_d_conv")
    inner = heads * head_dim
    convolved = inner + 2 * groups * state
    bias = convolved if fields.flag("use_conv_bias", default=True) else 0
    return RecurrentMixer(
        kind="mamba2",
        num_heads=heads,
        head_dim=head_dim,
        state_elements=heads * head_dim * state,
        conv_elements=convolved * (kernel - 1),
        projections=((hidden, inner + convolved + heads), (inner, hidden)),
        extra_params=convolved * kernel + bias + 3 * heads + inner,
        state_dtype=_state_dtype(fields, "mamba_ssm_cache_dtype", "float32"),
    )


def _state_dtype(fields: ConfigFields, key: str, default: str) -> str:
    found = fields.text(key, default=default)
    if found not in _STATE_DTYPES:
        raise fields.unsupported(key, found, ", ".join(_STATE_DTYPES))
    return _STATE_DTYPES[found]


def kimi_linear_decoder(fields: ConfigFields) -> Decoder:
    """Kimi Linear and Kimi K3: KDA layers with MLA layers between; K3 adds output gates, latent experts and
    residuals over blocks of layers (attn_res_block_size: two norms and two score vectors a layer and one pair at the
    end)."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    linear = fields.child("linear_attn_config")
    full = set(linear.sizes("full_attn_layers"))
    if full | set(linear.sizes("kda_layers")) != set(range(1, count + 1)) or full & set(linear.sizes("kda_layers")):
        raise linear.unsupported("full_attn_layers", len(full), f"with kda_layers they must name layers 1 to {count}")
    latent = latent_attention(fields)
    latent = replace(latent, output_gate=fields.flag("mla_use_output_gate", default=False))
    residual = 4 * hidden if fields.has("attn_res_block_size") else 0
    first = fields.size("first_k_dense_replace", minimum=0)
    if fields.size("moe_layer_freq", default=1) != 1:
        raise fields.unsupported("moe_layer_freq", fields.data["moe_layer_freq"], "only 1")
    experts = _kimi_experts(fields)
    dense = DenseMlp(intermediate_size=fields.size("intermediate_size"))
    layers = tuple(
        Layer(
            mixer=latent if index + 1 in full else kimi_delta(fields),
            mlp=dense if index < first else experts,
            norm_params=2 * hidden + residual,
        )
        for index in range(count)
    )
    if fields.extra_layers("num_nextn_predict_layers"):
        raise fields.unsupported("num_nextn_predict_layers", fields.data["num_nextn_predict_layers"], "only 0")
    return Decoder(layers=layers, final_norm_params=hidden + residual // 2)


def _kimi_experts(fields: ConfigFields) -> MoeMlp:
    """Routed experts (K3: in a latent width, normed) and shared ones, one MLP of their summed size."""
    width = fields.size("moe_intermediate_size")
    latent = fields.size("routed_expert_hidden_size", default=0, minimum=0)
    normed = latent if fields.flag("latent_moe_use_norm", default=False) else 0
    return MoeMlp(
        num_experts=fields.size("num_experts"),
        top_k=fields.size("num_experts_per_token"),
        intermediate_size=width,
        shared_intermediate_size=width * fields.size("num_shared_experts", default=0, minimum=0),
        router_bias=True,
        num_groups=fields.size("num_expert_group", default=1),
        topk_groups=fields.size("topk_group", default=1),
        latent_size=latent,
        extra_params=normed,
    )


def kimi_delta(fields: ConfigFields) -> RecurrentMixer:
    """KDA (transformers KimiLinearDeltaAttention; K3's full-rank output gate as in SGLang kimi_k3.py).

    State head_dim² a head, in fp32 (vLLM kda_state_dtype); convolutions over q, k and v.
    """
    linear = fields.child("linear_attn_config")
    hidden, heads, head_dim = fields.size("hidden_size"), linear.size("num_heads"), linear.size("head_dim")
    kernel = linear.size("short_conv_kernel_size")
    width = heads * head_dim
    low_rank = ((hidden, head_dim), (head_dim, width))
    gate = ((hidden, width),) if linear.flag("use_full_rank_gate", default=False) else low_rank
    return RecurrentMixer(
        kind="kimi_delta",
        num_heads=heads,
        head_dim=head_dim,
        state_elements=heads * head_dim * head_dim,
        conv_elements=3 * width * (kernel - 1),
        projections=((hidden, 3 * width), *low_rank, (hidden, heads), *gate, (width, hidden)),
        extra_params=3 * width * kernel + width + heads + head_dim,
        state_dtype="fp32",
    )


def nemotron_nas_decoder(fields: ConfigFields) -> Decoder:
    """Nemotron found by architecture search (DeciLM): every block has its own attention and FFN, or none."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    layers = []
    for index, block in enumerate(fields.sequence("block_configs", count)):
        item = ConfigFields(data={"block": block}, path=f"{fields.path}.block_configs[{index}]").child("block")
        attention, mlp = _nas_attention(fields, item.child("attention")), _nas_mlp(fields, item.child("ffn"))
        norms = hidden * ((attention is not None) + (mlp is not None))
        layers.append(Layer(mixer=attention, mlp=mlp, norm_params=norms))
    return Decoder(layers=tuple(layers), final_norm_params=hidden)


def _nas_attention(fields: ConfigFields, block: ConfigFields) -> Attention | None:
    for key in ("replace_with_linear", "sparsify", "window_length", "num_sink_tokens", "unshifted_sink"):
        block.refuse(key)
    if block.flag("no_op"):
        return None
    heads, group = fields.size("num_attention_heads"), block.size("n_heads_in_group")
    if heads % group:
        raise block.unsupported("n_heads_in_group", group, f"a divisor of the {heads} heads")
    bias = fields.flag("attention_bias", default=False)
    data = {**fields.data, "num_key_value_heads": heads // group}
    return grouped_attention(replace(fields, data=data), qkv_bias=bias, out_bias=bias)


def _nas_mlp(fields: ConfigFields, block: ConfigFields) -> DenseMlp | None:
    """Width 2/3 × ffn_mult × hidden, up to a multiple of 256 (DeciLM's _ffn_mult_to_intermediate_size)."""
    block.refuse("replace_with_linear")
    block.refuse("sparsify")
    if block.flag("no_op"):
        return None
    width = int(2 * block.number("ffn_mult") * fields.size("hidden_size") / 3)
    return DenseMlp(intermediate_size=-(-width // 256) * 256, bias=fields.flag("mlp_bias", default=False))
