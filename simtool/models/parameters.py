"""Parameters: every weight of an architecture as a slice with its dtype and how it is sharded; counts from these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from simtool.models.architecture import (
    Attention,
    DenseMlp,
    FeedForward,
    LatentAttention,
    Layer,
    Mixer,
    ModelArchitecture,
    MoeMlp,
    RecurrentMixer,
    WeightDtypes,
)

Shard = Literal["tp", "kv", "experts", "shared", "whole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSlice:
    """Some weights of one layer that share a dtype and a way of being cut.

    shard: "tp" is cut over the tensor-parallel ranks, "kv" by KV heads (each rank holds at least one), "experts" by
    experts and then inside them, "shared" (always-on experts) as "tp" unless tokens are cut instead, "whole" is on
    every rank. units: KV heads or experts. elements: all ranks together.
    active: share of the elements that one token uses.
    """

    module: str
    dtype: str
    elements: int
    shard: Shard
    units: int = 1
    active: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """Parameters of a model. total = embedding + lm_head + layers + other; MTP and multimodal parts stand apart.

    active: used by one token (routed experts by top_k), counted as the model's publisher does (active_scope).
    active_all: with embedding and LM head; active_without_embedding: with the LM head alone; active_layers: neither.
    lm_head is 0 where it is tied to the embedding. other: final norm and learned positions.
    """

    total: int
    active: int
    active_all: int
    active_without_embedding: int
    active_layers: int
    embedding: int
    lm_head: int
    layers: int
    experts: int
    other: int
    mtp: int
    multimodal: int


def parameter_counts(arch: ModelArchitecture) -> ParameterCounts:
    """Exact counts from shapes. `total` leaves out MTP blocks and vision or audio encoders, counted beside it."""
    slices = [item for layer in arch.layers for item in layer_slices(arch, layer)]
    layers = sum(item.elements for item in slices)
    active_layers = sum(item.elements * item.active for item in slices)
    embedding = arch.vocab_size * arch.hidden_size
    lm_head = 0 if arch.tie_word_embeddings else embedding
    other = arch.final_norm_params + arch.position_params
    outside = embedding + lm_head + other
    active_all = round(active_layers) + outside
    scopes = {
        "all": active_all,
        "without_embedding": active_all - (0 if arch.tie_word_embeddings else embedding),
        "layers": round(active_layers) + other,
    }
    mtp_slices = [item for layer in arch.mtp_layers for item in layer_slices(arch, layer)]
    return ParameterCounts(
        total=layers + outside,
        active=scopes[arch.active_scope],
        active_all=active_all,
        active_without_embedding=scopes["without_embedding"],
        active_layers=scopes["layers"],
        embedding=embedding,
        lm_head=lm_head,
        layers=layers,
        experts=sum(item.elements for item in slices if item.module == "experts"),
        other=other,
        mtp=sum(item.elements for item in mtp_slices) + arch.mtp_params,
        multimodal=arch.extra_params,
    )


def layer_slices(arch: ModelArchitecture, layer: Layer) -> tuple[WeightSlice, ...]:
    """All weights of one layer."""
    dtypes = layer.dtypes or arch.dtypes
    norms = WeightSlice(module="norm", dtype=dtypes.other, elements=layer.norm_params, shard="whole")
    mixer = mixer_slices(layer.mixer, arch.hidden_size, dtypes)
    mlp = feed_forward_slices(layer.mlp, arch.hidden_size, dtypes)
    return tuple(item for item in (*mixer, *mlp, norms) if item.elements > 0)


def mixer_slices(mixer: Mixer | None, hidden: int, dtypes: WeightDtypes) -> Iterable[WeightSlice]:
    """Weights of a token mixer of a model of width `hidden`."""
    match mixer:
        case None:
            return ()
        case Attention():
            return _attention_slices(mixer, hidden, dtypes)
        case LatentAttention():
            return _latent_slices(mixer, hidden, dtypes)
        case RecurrentMixer():
            return _recurrent_slices(mixer, dtypes)


def feed_forward_slices(mlp: FeedForward | None, hidden: int, dtypes: WeightDtypes) -> Iterable[WeightSlice]:
    """Weights of a feed-forward part of a model of width `hidden`."""
    match mlp:
        case None:
            return ()
        case DenseMlp():
            return _dense_slices(mlp, hidden, dtypes)
        case MoeMlp():
            return _moe_slices(mlp, hidden, dtypes)


def _attention_slices(mixer: Attention, hidden: int, dtypes: WeightDtypes) -> list[WeightSlice]:
    query = mixer.num_heads * mixer.head_dim * (2 if mixer.output_gate else 1)
    output = mixer.num_heads * mixer.v_head_dim
    values = 0 if mixer.tied_kv else mixer.v_head_dim
    keys = 0 if mixer.kv_shared else mixer.num_kv_heads * (mixer.head_dim + values)
    slices = [
        WeightSlice(module="attention", dtype=dtypes.attention, elements=hidden * (query + output), shard="tp"),
        WeightSlice(
            module="attention", dtype=dtypes.attention, elements=hidden * keys, shard="kv", units=mixer.num_kv_heads
        ),
        _whole("attention_other", dtypes.other, mixer.extra_params + (hidden if mixer.out_bias else 0)),
    ]
    if mixer.qkv_bias:
        slices.append(WeightSlice(module="attention_other", dtype=dtypes.other, elements=query, shard="tp"))
        slices.append(
            WeightSlice(
                module="attention_other", dtype=dtypes.other, elements=keys, shard="kv", units=mixer.num_kv_heads
            )
        )
    if mixer.indexer is not None:
        slices.append(_whole("indexer", dtypes.attention, mixer.indexer.params))
    return slices


def _latent_slices(mixer: LatentAttention, hidden: int, dtypes: WeightDtypes) -> list[WeightSlice]:
    """MLA. The down projections are replicated, the up projections cut by heads (vLLM deepseek_v2.py)."""
    query = mixer.num_heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim)
    output = mixer.num_heads * mixer.v_head_dim
    up_kv = mixer.kv_lora_rank * mixer.num_heads * (mixer.qk_nope_head_dim + mixer.v_head_dim)
    down = hidden * (mixer.q_lora_rank + mixer.kv_lora_rank + mixer.qk_rope_head_dim)
    cut = (mixer.q_lora_rank or hidden) * query + up_kv + hidden * output * (2 if mixer.output_gate else 1)
    slices = [
        WeightSlice(module="attention", dtype=dtypes.attention, elements=cut, shard="tp"),
        _whole("attention", dtypes.attention, down),
        _whole("attention_other", dtypes.other, mixer.extra_params + mixer.q_lora_rank + mixer.kv_lora_rank),
    ]
    if mixer.indexer is not None:
        slices.append(_whole("indexer", dtypes.attention, mixer.indexer.params))
    return slices


def _recurrent_slices(mixer: RecurrentMixer, dtypes: WeightDtypes) -> list[WeightSlice]:
    matrices = sum(rows * columns for rows, columns in mixer.projections)
    return [
        WeightSlice(module="recurrent", dtype=dtypes.recurrent, elements=matrices, shard="tp"),
        WeightSlice(module="recurrent_other", dtype=dtypes.other, elements=mixer.extra_params, shard="tp"),
    ]


def _dense_slices(mlp: DenseMlp, hidden: int, dtypes: WeightDtypes) -> list[WeightSlice]:
    branches = 2 if mlp.gated else 1
    matrices = hidden * mlp.intermediate_size * (branches + 1)
    slices = [WeightSlice(module="mlp", dtype=dtypes.mlp, elements=matrices, shard="tp")]
    if mlp.bias:
        inner = branches * mlp.intermediate_size
        slices.append(WeightSlice(module="mlp_other", dtype=dtypes.other, elements=inner, shard="tp"))
        slices.append(_whole("mlp_other", dtypes.other, hidden))
    return slices


def _moe_slices(mlp: MoeMlp, hidden: int, dtypes: WeightDtypes) -> list[WeightSlice]:
    branches = 2 if mlp.gated else 1
    width = mlp.latent_size or hidden
    share = mlp.top_k / mlp.num_experts
    expert = width * mlp.intermediate_size * (branches + 1)
    shared_matrices = hidden * mlp.shared_intermediate_size * (3 if mlp.shared_gated else 2)
    router = hidden * mlp.num_experts + (mlp.num_experts if mlp.router_bias else 0)
    gate = hidden if mlp.shared_expert_gate else 0
    slices = [
        _experts("experts", dtypes.experts, mlp.num_experts, expert, share),
        WeightSlice(module="shared_experts", dtype=dtypes.shared_experts, elements=shared_matrices, shard="shared"),
        _whole("router", dtypes.other, router + gate + mlp.extra_params),
        _whole("latent", dtypes.shared_experts, 2 * hidden * mlp.latent_size),
    ]
    if mlp.bias:
        bias = branches * mlp.intermediate_size + width
        slices.append(_experts("experts_other", dtypes.other, mlp.num_experts, bias, share))
    if mlp.dense_intermediate_size:
        slices += _dense_slices(DenseMlp(intermediate_size=mlp.dense_intermediate_size), hidden, dtypes)
    return slices


def _experts(module: str, dtype: str, count: int, each: int, share: float) -> WeightSlice:
    return WeightSlice(module=module, dtype=dtype, elements=count * each, shard="experts", units=count, active=share)


def _whole(module: str, dtype: str, elements: int) -> WeightSlice:
    return WeightSlice(module=module, dtype=dtype, elements=elements, shard="whole")
