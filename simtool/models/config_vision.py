"""Parameters of the vision encoder and projector beside a decoder, from the shapes in `vision_config`."""

from __future__ import annotations

from simtool.models.config_fields import ConfigFields


def qwen_vision_params(vision: ConfigFields, text: ConfigFields) -> int:  # noqa: ARG001 - one signature for all
    """Qwen3-VL and Qwen3.5: patch embedding, learned positions, blocks, a merger and deepstack mergers.

    Shapes: transformers Qwen3VLVisionModel; all linear layers biased, LayerNorms of two vectors.
    """
    hidden = vision.size("hidden_size")
    patch = vision.size("in_channels", default=3) * vision.size("temporal_patch_size") * vision.size("patch_size") ** 2
    block = _biased_block(hidden, vision.size("intermediate_size"))
    merged = hidden * vision.size("spatial_merge_size") ** 2
    merger = _linear(merged, merged) + _linear(merged, vision.size("out_hidden_size"))
    deep = len(vision.sizes("deepstack_visual_indexes")) if vision.has("deepstack_visual_indexes") else 0
    positions = vision.size("num_position_embeddings") * hidden
    stem = _linear(patch, hidden) + positions + merger + 2 * hidden
    return stem + vision.layers("depth") * block + deep * (merger + 2 * merged)


def siglip_params(vision: ConfigFields, text: ConfigFields) -> int:
    """Gemma 3: SigLIP without its pooling head, then one projection matrix and a norm (Gemma3MultiModalProjector)."""
    hidden, side = vision.size("hidden_size"), vision.size("patch_size")
    positions = (vision.size("image_size") // side) ** 2 * hidden
    block = _biased_block(hidden, vision.size("intermediate_size"))
    stem = _linear(3 * side * side, hidden) + positions + 2 * hidden
    return stem + vision.layers() * block + hidden * text.size("hidden_size") + hidden


def llama4_vision_params(vision: ConfigFields, text: ConfigFields) -> int:
    """Llama 4: unbiased patch projection, class token, learned positions, biased blocks, a pixel-shuffle MLP."""
    hidden, side, inner = vision.size("hidden_size"), vision.size("patch_size"), vision.size("intermediate_size")
    patches = (vision.size("image_size") // side) ** 2 + 1
    stem = 3 * side * side * hidden + hidden + patches * hidden + 4 * hidden
    output = vision.size("projector_output_dim")
    # Pixel shuffle widens a token by 1/ratio²: that is the MLP's input, named intermediate_size in the class.
    shuffled = round(hidden / vision.number("pixel_shuffle_ratio") ** 2)
    adapter = shuffled * vision.size("projector_input_dim") + output * output
    projector = vision.size("vision_output_dim") * text.size("hidden_size")
    return stem + vision.layers() * _biased_block(hidden, inner) + adapter + projector


def gemma4_vision_params(vision: ConfigFields, text: ConfigFields) -> int:
    """Gemma 4: unbiased gated blocks with four norms and q/k norms, two position tables, one projection."""
    hidden, head_dim = vision.size("hidden_size"), vision.size("head_dim")
    heads, kv_heads = vision.size("num_attention_heads"), vision.size("num_key_value_heads")
    attention = 2 * hidden * (heads + kv_heads) * head_dim + 2 * head_dim
    block = attention + 3 * hidden * vision.size("intermediate_size") + 4 * hidden
    stem = 3 * vision.size("patch_size") ** 2 * hidden + 2 * vision.size("position_embedding_size") * hidden
    standard = 2 * hidden if vision.flag("standardize", default=False) else 0
    return stem + vision.layers() * block + standard + hidden * text.size("hidden_size")


def kimi_vision_params(vision: ConfigFields, text: ConfigFields) -> int:
    """Kimi K2.5: MoonViT-3D (learned spatial and fixed temporal positions), patch merger of two biased layers."""
    hidden, side = vision.size("vt_hidden_size"), vision.size("patch_size")
    rows, columns = vision.sizes("merge_kernel_size", 2)
    merged = vision.size("mm_hidden_size") * rows * columns
    positions = vision.size("init_pos_emb_height") * vision.size("init_pos_emb_width") * hidden
    stem = _linear(3 * side * side, hidden) + positions + 2 * hidden
    block = _biased_block(hidden, vision.size("vt_intermediate_size"))
    projector = 2 * vision.size("mm_hidden_size") + _linear(merged, merged) + _linear(merged, text.size("hidden_size"))
    return stem + vision.layers("vt_num_hidden_layers") * block + projector


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _biased_block(hidden: int, inner: int) -> int:
    """A ViT block: four attention matrices and a two-layer MLP, all biased, and two LayerNorms."""
    return 4 * _linear(hidden, hidden) + _linear(hidden, inner) + _linear(inner, hidden) + 4 * hidden
