"""Dense families: llama, mistral, qwen2, qwen3, gemma2, gemma3, phi3, opt, mimo. Layers from their config keys."""

from __future__ import annotations

from dataclasses import dataclass

from simtool.models.architecture import DenseMlp, Layer
from simtool.models.config_attention import grouped_attention, layer_windows
from simtool.models.config_fields import ConfigFields


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """What a family's reader returns; the keys all families share are read in config.py."""

    layers: tuple[Layer, ...]
    mtp_layers: tuple[Layer, ...] = ()
    final_norm_params: int
    position_params: int = 0
    mtp_params: int = 0
    tied_default: bool = False


def llama_decoder(fields: ConfigFields) -> Decoder:
    """Llama (LlamaConfig: num_key_value_heads null = num_attention_heads; no biases unless stated)."""
    hidden = fields.size("hidden_size")
    bias = fields.flag("attention_bias", default=False)
    attention = grouped_attention(fields, qkv_bias=bias, out_bias=bias, kv_heads_default=None)
    mlp_bias = fields.flag("mlp_bias", default=False)
    mlp = DenseMlp(intermediate_size=fields.size("intermediate_size"), bias=mlp_bias)
    layer = Layer(mixer=attention, mlp=mlp, norm_params=2 * hidden)
    return Decoder(layers=(layer,) * fields.layers(), final_norm_params=hidden)


def mistral_decoder(fields: ConfigFields) -> Decoder:
    """Mistral: every layer windowed when sliding_window is a number; null (or absent in later releases): none."""
    hidden = fields.size("hidden_size")
    if "sliding_window" not in fields.data:
        # MistralConfig defaults to 4096, which the releases without a window override with null.
        fields.value(("sliding_window",))
    window = fields.size("sliding_window", default=0, minimum=0)
    mlp = DenseMlp(intermediate_size=fields.size("intermediate_size"))
    layer = Layer(mixer=grouped_attention(fields, window=window), mlp=mlp, norm_params=2 * hidden)
    return Decoder(layers=(layer,) * fields.layers(), final_norm_params=hidden)


def qwen_windows(fields: ConfigFields, count: int) -> list[int]:
    """Windows of Qwen2/2.5/3: only with use_sliding_window, from layer max_window_layers on (Qwen2Config)."""
    if not fields.flag("use_sliding_window", default=False):
        return [0] * count
    window = fields.size("sliding_window")
    if fields.has("layer_types"):
        return layer_windows(fields, count, window)
    first = fields.size("max_window_layers", minimum=0)
    return [window if index >= first else 0 for index in range(count)]


def qwen2_decoder(fields: ConfigFields) -> Decoder:
    """Qwen2 and 2.5: q, k, v biased and o not, fixed in the class."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    mlp = DenseMlp(intermediate_size=fields.size("intermediate_size"))
    layers = tuple(
        Layer(mixer=grouped_attention(fields, window=window, qkv_bias=True), mlp=mlp, norm_params=2 * hidden)
        for window in qwen_windows(fields, count)
    )
    return Decoder(layers=layers, final_norm_params=hidden)


def qwen3_decoder(fields: ConfigFields) -> Decoder:
    """Qwen3 and the text part of Qwen3-VL: q/k norms a head."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    bias = fields.flag("attention_bias", default=False)
    mlp = DenseMlp(intermediate_size=fields.size("intermediate_size"))
    layers = tuple(
        Layer(
            mixer=grouped_attention(fields, window=window, qkv_bias=bias, out_bias=bias, qk_norm="head"),
            mlp=mlp,
            norm_params=2 * hidden,
        )
        for window in qwen_windows(fields, count)
    )
    return Decoder(layers=layers, final_norm_params=hidden)


def mimo_decoder(fields: ConfigFields) -> Decoder:
    """MiMo-7B: Qwen2 layers and MTP blocks, each with two input norms, a final norm and a 2 × hidden projection."""
    decoder = qwen2_decoder(fields)
    hidden = fields.size("hidden_size")
    if not fields.flag("attention_bias", default=True):
        raise fields.unsupported("attention_bias", False, "the mimo class has q, k and v biases")
    extra = fields.extra_layers("num_nextn_predict_layers")
    return Decoder(
        layers=decoder.layers,
        final_norm_params=hidden,
        mtp_layers=decoder.layers[:1] * extra,
        mtp_params=extra * (2 * hidden * hidden + 3 * hidden),
    )


def phi3_decoder(fields: ConfigFields) -> Decoder:
    """Phi-3: fused projections without biases; the window holds for all layers (Phi3Config)."""
    hidden = fields.size("hidden_size")
    window = fields.size("sliding_window", default=0, minimum=0)
    attention = grouped_attention(fields, window=window, kv_heads_default=None)
    mlp = DenseMlp(intermediate_size=fields.size("intermediate_size"))
    layer = Layer(mixer=attention, mlp=mlp, norm_params=2 * hidden)
    return Decoder(layers=(layer,) * fields.layers(), final_norm_params=hidden)


def opt_decoder(fields: ConfigFields) -> Decoder:
    """OPT: biases everywhere, LayerNorms of two vectors, learned positions (two more than stated), tied embedding."""
    hidden = fields.size("hidden_size")
    if fields.size("word_embed_proj_dim", default=hidden) != hidden:
        raise fields.unsupported("word_embed_proj_dim", fields.data["word_embed_proj_dim"], "only hidden_size")
    if not fields.flag("do_layer_norm_before", default=True):
        raise fields.unsupported("do_layer_norm_before", False, "OPT-350m is the only such model")
    bias = fields.flag("enable_bias", default=True)
    attention = grouped_attention(fields, qkv_bias=bias, out_bias=bias, kv_heads_default=None)
    mlp = DenseMlp(intermediate_size=fields.size("ffn_dim"), gated=False, bias=bias)
    layer = Layer(mixer=attention, mlp=mlp, norm_params=4 * hidden)
    positions = (fields.size("max_position_embeddings") + 2) * hidden
    layers = (layer,) * fields.layers()
    return Decoder(layers=layers, final_norm_params=2 * hidden, position_params=positions, tied_default=True)
