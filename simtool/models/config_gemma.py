"""Gemma 2, 3 and 4: norms before and after each part, sliding windows between full layers, tied embeddings."""

from __future__ import annotations

from simtool.models.architecture import Attention, DenseMlp, FeedForward, Layer, MoeMlp
from simtool.models.config_attention import FULL, grouped_attention, layer_windows
from simtool.models.config_dense import Decoder
from simtool.models.config_fields import ConfigFields


def gemma2_decoder(fields: ConfigFields) -> Decoder:
    """Gemma 2: every second layer is full (Gemma2Config without layer_types)."""
    return _decoder(fields, full_every=2, qk_norm=False)


def gemma3_decoder(fields: ConfigFields) -> Decoder:
    """Gemma 3: every sixth layer is full (sliding_window_pattern) and queries and keys are normed a head."""
    return _decoder(fields, full_every=fields.size("sliding_window_pattern", default=6), qk_norm=True)


def _decoder(fields: ConfigFields, *, full_every: int, qk_norm: bool) -> Decoder:
    hidden, count = fields.size("hidden_size"), fields.layers()
    fields.size("head_dim")  # never hidden_size / heads in this family
    bias = fields.flag("attention_bias", default=False)
    mlp = DenseMlp(intermediate_size=fields.size("intermediate_size"))
    layers = tuple(
        Layer(
            mixer=grouped_attention(
                fields, window=window, qkv_bias=bias, out_bias=bias, qk_norm="head" if qk_norm else "none"
            ),
            mlp=mlp,
            norm_params=4 * hidden,
        )
        for window in layer_windows(fields, count, fields.size("sliding_window"), full_every=full_every)
    )
    return Decoder(layers=layers, final_norm_params=hidden, tied_default=True)


def gemma4_decoder(fields: ConfigFields) -> Decoder:
    """Gemma 4 (dense and mixture of experts): full layers have their own head size, KV heads and tied keys and values.

    Refused: per-layer input embeddings (the E2B and E4B models).
    """
    hidden, count = fields.size("hidden_size"), fields.layers()
    if fields.size("hidden_size_per_layer_input", minimum=0):
        raise fields.unsupported("hidden_size_per_layer_input", fields.data["hidden_size_per_layer_input"], "only 0")
    shared = fields.size("num_kv_shared_layers", default=0, minimum=0)
    if shared >= count:
        raise fields.unsupported("num_kv_shared_layers", shared, f"fewer than the {count} layers")
    experts = fields.flag("enable_moe_block", default=False)
    windows = layer_windows(fields, count, fields.size("sliding_window"), full_every=6)
    if windows[-1]:
        raise fields.unsupported("layer_types", "a sliding last layer", f"the last layer must be {FULL}")
    layers = tuple(
        Layer(
            mixer=_gemma4_attention(fields, window, kv_shared=index >= count - shared),
            mlp=_gemma4_feed_forward(fields, experts=experts, kv_shared=index >= count - shared),
            norm_params=(7 if experts else 4) * hidden,
        )
        for index, window in enumerate(windows)
    )
    return Decoder(layers=layers, final_norm_params=hidden, tied_default=True)


def _gemma4_attention(fields: ConfigFields, window: int, *, kv_shared: bool) -> Attention:
    """Sliding layers: head_dim, num_key_value_heads. Full layers: global_head_dim and, with attention_k_eq_v, their own
    number of KV heads and no value projection (Gemma4TextAttention)."""
    full = window == 0
    tied = full and fields.flag("attention_k_eq_v", default=False)
    head_dim = fields.size("global_head_dim", default=512) if full else fields.size("head_dim")
    kv_heads = fields.size("num_key_value_heads")
    if tied:
        kv_heads = fields.size("num_global_key_value_heads", default=kv_heads)
    bias = fields.flag("attention_bias", default=False)
    return Attention(
        num_heads=fields.size("num_attention_heads"),
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        v_head_dim=head_dim,
        window=window,
        kv_shared=kv_shared,
        qkv_bias=bias,
        out_bias=bias,
        tied_kv=tied,
        extra_params=head_dim if kv_shared else 2 * head_dim,
    )


def _gemma4_feed_forward(fields: ConfigFields, *, experts: bool, kv_shared: bool) -> FeedForward:
    """A dense MLP, and with enable_moe_block experts beside it (router scale a channel and a scale an expert)."""
    wide = kv_shared and fields.flag("use_double_wide_mlp", default=False)
    dense = fields.size("intermediate_size") * (2 if wide else 1)
    if not experts:
        return DenseMlp(intermediate_size=dense)
    count = fields.size("num_experts")
    return MoeMlp(
        num_experts=count,
        top_k=fields.size("top_k_experts"),
        intermediate_size=fields.size("moe_intermediate_size"),
        dense_intermediate_size=dense,
        extra_params=fields.size("hidden_size") + count,
    )
