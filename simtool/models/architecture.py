"""ModelArchitecture: what a model is made of, layer by layer. No hardware and no time here.

A layer is a token mixer and a feed-forward part. Hybrids are sequences of unlike layers, so nothing below is
"the model's attention kind": ask the layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseIndexer:
    """Lightning indexer of sparse attention (DeepSeek V3.2): scores all keys, keeps `topk` tokens.

    shared: the layer uses another layer's indices (no indexer weights, no index keys of its own).
    block_size: keys are kept in blocks of so many tokens (1: single tokens; topk stays in tokens).
    params: learned elements of the indexer. key_bytes: bytes a token of its own key cache.
    """

    num_heads: int
    head_dim: int
    topk: int
    shared: bool = False
    block_size: int = 1
    params: int = 0
    key_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Softmax attention over a KV cache (MHA, GQA, MQA), optionally windowed.

    window: tokens seen (sliding window), 0 = all. chunked: the window is a fixed chunk (Llama 4), not sliding.
    v_head_dim may differ from head_dim. kv_shared: reads another layer's KV (stores none, has no k/v projections).
    extra_params: learned parameters beside q/k/v/o and biases (sinks, gates, q/k norms), elements.
    tied_kv: values are made from the key projection (no v_proj; the cache still holds both). indexer: sparse attention.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    window: int = 0
    chunked: bool = False
    kv_shared: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    output_gate: bool = False
    extra_params: int = 0
    tied_kv: bool = False
    indexer: SparseIndexer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (MLA). q_lora_rank 0: the query is projected directly.

    The cache holds kv_lora_rank + qk_rope_head_dim elements a token, the same on every TP rank.
    output_gate: a hidden → num_heads × v_head_dim gate on the output. extra_params: norms and the like, elements.
    """

    num_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    indexer: SparseIndexer | None = None
    output_gate: bool = False
    extra_params: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentMixer:
    """Linear attention or state-space mixer: a state of fixed size a sequence instead of a KV cache.

    kind: "mamba2", "gated_delta_net", "kimi_delta", "lightning". state_elements and conv_elements a sequence;
    projections is a tuple of (in_features, out_features) of its GEMMs; extra_params the rest, in elements.
    """

    kind: str
    num_heads: int
    head_dim: int
    state_elements: int
    conv_elements: int
    projections: tuple[tuple[int, int], ...]
    extra_params: int = 0
    state_dtype: str = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseMlp:
    """Feed-forward: gated (three matrices) or plain (two)."""

    intermediate_size: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeMlp:
    """Routed experts plus an always-on shared part (shared_intermediate_size 0: none).

    num_groups/topk_groups: group-limited routing (1: none). latent_size: experts work in this width (0: hidden).
    dense_intermediate_size: a dense MLP that runs beside the experts in the same layer (0: none).
    extra_params: learned elements beside the experts and the router matrix (scales, inner norms).
    """

    num_experts: int
    top_k: int
    intermediate_size: int
    shared_intermediate_size: int = 0
    gated: bool = True
    shared_gated: bool = True
    shared_expert_gate: bool = False
    bias: bool = False
    router_bias: bool = False
    num_groups: int = 1
    topk_groups: int = 1
    latent_size: int = 0
    dense_intermediate_size: int = 0
    extra_params: int = 0


ActiveScope = Literal["all", "without_embedding", "layers"]
Mixer = Attention | LatentAttention | RecurrentMixer
FeedForward = DenseMlp | MoeMlp


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block. Either part may be absent (Nemotron-H, pruned blocks). norm_params: elements of its norms.

    dtypes: this layer's own storage dtypes where the checkpoint leaves single layers unquantised (None: the model's).
    """

    mixer: Mixer | None
    mlp: FeedForward | None
    norm_params: int = 0
    dtypes: WeightDtypes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDtypes:
    """Storage dtype by module group, as the checkpoint states it.

    scale_bytes_per_element: block scales (and zero points) of the quantised groups; None: the dtype's usual ones
    (models/quantization.py).
    """

    attention: str = "bf16"
    mlp: str = "bf16"
    experts: str = "bf16"
    shared_experts: str = "bf16"
    embedding: str = "bf16"
    lm_head: str = "bf16"
    recurrent: str = "bf16"  # projections of recurrent mixers
    other: str = "bf16"  # norms, routers, biases, convolutions
    scale_bytes_per_element: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArchitecture:
    """A decoder (the language part of a multimodal model; encoders and projectors are counted in extra_params).

    max_position_embeddings: the longest context in tokens, rotary scaling included.
    layers: the main stack, in order. mtp_layers: multi-token-prediction blocks (weights counted, not run in decode);
    mtp_params: their projections, norms and heads outside of layers. position_params: learned positions and the like.
    active_scope: what the publisher counts as active: "all", "without_embedding" (a lookup, not a product), or
    "layers" (neither embedding nor LM head).
    published_params / published_active_params: the model card's numbers (0 unknown), for the check in tests.
    """

    name: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    tie_word_embeddings: bool
    max_position_embeddings: int
    dtypes: WeightDtypes
    kv_dtype: str = "bf16"
    activation_dtype: str = "bf16"
    mtp_layers: tuple[Layer, ...] = ()
    final_norm_params: int = 0
    position_params: int = 0
    extra_params: int = 0
    mtp_params: int = 0
    source: str = ""
    model_type: str = ""
    active_scope: ActiveScope = "all"
    published_params: float = 0.0
    published_active_params: float = 0.0
