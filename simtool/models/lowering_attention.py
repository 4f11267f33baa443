"""The cache side of a layer: prefill and decode attention of every kind, indexers, recurrences.

(query, key) pairs: a query at position p (from 1) sees min(p, window) keys of a sliding window, (p-1) mod window + 1 of
a fixed chunk. A pair costs 2(d_qk + d_v) FLOPs a head (scores and weighted values).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simtool.models.architecture import Attention, LatentAttention, RecurrentMixer, SparseIndexer, WeightDtypes
from simtool.models.lowering_kernels import constant, element_bytes, gemm
from simtool.models.lowering_mixer import recurrent_width
from simtool.models.lowering_shard import Shard, kv_heads_per_rank, latent_width
from simtool.models.operators import Array, Family, Operator

# FLOPs an element of recurrent state a token: decay, rank-one update (2), read-out (2); the delta rule first reads the
# state with the key (2). Mamba-2 (arXiv 2405.21060), Gated DeltaNet (arXiv 2412.06464), Kimi Linear (arXiv 2510.26692).
_STATE_FLOPS = {"mamba2": 5.0, "lightning": 5.0, "gated_delta_net": 7.0, "kimi_delta": 7.0}


def decode_operators(
    shard: Shard, requests: Array, kv_tokens: Array, beside_prefill: Array | None = None
) -> list[Operator]:
    """One new token for each of `requests` [b], which see `kv_tokens` [b] keys each on average.

    beside_prefill [b]: above 0 where the step also has prefill chunks (None: nowhere); some libraries then run both in
    one kernel, so it is a dimension of the attention operator.
    """
    operators: list[Operator] = []
    for mixer, _, count in shard.mixers:
        match mixer:
            case Attention():
                operators += _decode_index(mixer.indexer, count, requests, kv_tokens)
                attention = _decode_attention(shard, mixer, count, requests, kv_tokens)
                if beside_prefill is not None:
                    attention = replace(attention, dims={**attention.dims, "beside_prefill": beside_prefill})
                operators.append(attention)
            case LatentAttention():
                operators += _decode_index(mixer.indexer, count, requests, kv_tokens)
                operators.append(_decode_latent(shard, mixer, count, requests, kv_tokens, "mla_decode"))
            case RecurrentMixer():
                operators.append(_recurrence(shard, mixer, count, requests, requests, "recurrent_decode"))
    return operators


def prefill_operators(shard: Shard, requests: Array, new_tokens: Array, context: Array) -> list[Operator]:
    """`requests` [b] chunks of `new_tokens` [b] each, after `context` [b] cached tokens each."""
    operators: list[Operator] = []
    for mixer, dtypes, count in shard.mixers:
        match mixer:
            case Attention():
                operators += _prefill_index(mixer.indexer, count, requests, new_tokens, context)
                operators.append(_prefill_attention(shard, mixer, count, requests, new_tokens, context))
            case LatentAttention() if mixer.indexer is not None:
                operators += _prefill_index(mixer.indexer, count, requests, new_tokens, context)
                # sparse prefill is the decode kernel with every query a request of its own (FlashMLA sparse)
                keys = _pairs(new_tokens, context, mixer.indexer.topk, chunked=False) / np.maximum(new_tokens, 1.0)
                operators.append(_decode_latent(shard, mixer, count, requests * new_tokens, keys, "mla_sparse_prefill"))
            case LatentAttention():
                operators += _prefill_latent(shard, mixer, dtypes, count, requests, new_tokens, context)
            case RecurrentMixer():
                tokens = requests * new_tokens
                operators.append(_recurrence(shard, mixer, count, tokens, requests, "recurrent_prefill"))
    return operators


def _seen(kv_tokens: Array, window: int, *, chunked: bool) -> Array:
    """Keys a decode sees. A fixed chunk is on average half full once the context is longer than it."""
    if not window:
        return kv_tokens
    if chunked:
        return np.asarray(np.where(kv_tokens > window, (window + 1) / 2, kv_tokens))
    return np.asarray(np.minimum(kv_tokens, window))


def _pairs(new_tokens: Array, context: Array, window: int, *, chunked: bool) -> Array:
    """(query, key) pairs of one chunk: sum over its queries of the keys each sees."""

    def total(length: Array) -> Array:
        if not window:
            return np.asarray(length * (length + 1) / 2)
        if chunked:
            whole, rest = np.divmod(length, window)
            return np.asarray(whole * window * (window + 1) / 2 + rest * (rest + 1) / 2)
        capped = np.minimum(length, window)
        return np.asarray(capped * (capped + 1) / 2 + (length - capped) * window)

    return np.asarray(total(context + new_tokens) - total(context))


def _decode_attention(shard: Shard, mixer: Attention, count: int, requests: Array, kv_tokens: Array) -> Operator:
    tp, act = shard.parallel.tp, element_bytes(shard.arch.activation_dtype)
    heads, kv_heads = mixer.num_heads // tp, kv_heads_per_rank(mixer, tp)
    keys = _seen(kv_tokens, mixer.window, chunked=mixer.chunked)
    if mixer.indexer is not None:
        keys = np.minimum(keys, mixer.indexer.topk)
    width = mixer.head_dim + mixer.v_head_dim
    dims = {"batch": requests, "kv_len": keys, "heads": constant(heads, requests)}
    dims |= {"kv_heads": constant(kv_heads, requests), "head_dim": constant(width / 2, requests)}
    return Operator(
        name="attention_decode",
        family="attention_decode",
        count=count,
        dtype=shard.kv_dtype,
        dims=dims | {"window": constant(0 if mixer.chunked else mixer.window, requests)},
        flops=2.0 * requests * keys * heads * width,
        hbm_bytes=requests * width * (keys * kv_heads * element_bytes(shard.kv_dtype) + heads * act),
    )


def _prefill_attention(
    shard: Shard, mixer: Attention, count: int, requests: Array, new_tokens: Array, context: Array
) -> Operator:
    """Reads queries, new and (windowed) cached keys once, writes outputs (FlashAttention-2, arXiv 2307.08691)."""
    tp, act = shard.parallel.tp, element_bytes(shard.arch.activation_dtype)
    heads, kv_heads = mixer.num_heads // tp, kv_heads_per_rank(mixer, tp)
    window = mixer.window
    if mixer.indexer is not None:
        window = min(window, mixer.indexer.topk) if window else mixer.indexer.topk
    width = mixer.head_dim + mixer.v_head_dim
    pairs = _pairs(new_tokens, context, window, chunked=mixer.chunked)
    reach = new_tokens + (np.minimum(context, window) if window else context)
    kernel_window = constant(window, requests)
    if mixer.chunked:  # the kernel is priced with the sliding window that has as many pairs
        kernel_window = np.where(context + new_tokens > window, (window + 1) / 2, window)
    dims = {"batch": requests, "seq": new_tokens, "prefix": context, "heads": constant(heads, requests)}
    dims |= {"kv_heads": constant(kv_heads, requests), "head_dim": constant(width / 2, requests)}
    moved = width * (new_tokens * heads * act + reach * kv_heads * element_bytes(shard.kv_dtype))
    return Operator(
        name="attention_prefill",
        family="attention_prefill",
        count=count,
        dtype=shard.kv_dtype,
        dims=dims | {"window": kernel_window},
        flops=2.0 * requests * pairs * heads * width,
        hbm_bytes=requests * moved,
    )


def _decode_latent(
    shard: Shard, mixer: LatentAttention, count: int, requests: Array, kv_tokens: Array, name: str
) -> Operator:
    """Absorbed MLA: all heads share one latent key of kv_lora + rope elements; values are its kv_lora part.

    FLOPs and bytes include the two absorbed projections (q_nope → latent, latent → value) of every head
    (DeepSeek-V2, arXiv 2405.04434, section 2.1.2); their weights are read once.
    """
    heads, latent, rank = mixer.num_heads // shard.parallel.tp, latent_width(mixer), mixer.kv_lora_rank
    act = element_bytes(shard.arch.activation_dtype)
    keys = kv_tokens if mixer.indexer is None else np.minimum(kv_tokens, mixer.indexer.topk)
    absorbed = rank * (mixer.qk_nope_head_dim + mixer.v_head_dim)
    moved = requests * (keys * latent * element_bytes(shard.kv_dtype) + act * heads * (latent + rank))
    return Operator(
        name=name,
        family="mla_decode",
        count=count,
        dtype=shard.kv_dtype,
        dims={"batch": requests, "kv_len": keys, "heads": constant(heads, requests)},
        flops=2.0 * requests * heads * (keys * (latent + rank) + absorbed),
        hbm_bytes=moved + (requests > 0) * act * heads * absorbed,
    )


def _prefill_latent(
    shard: Shard,
    mixer: LatentAttention,
    dtypes: WeightDtypes,
    count: int,
    requests: Array,
    new_tokens: Array,
    context: Array,
) -> list[Operator]:
    """Expanded MLA: kv_b turns new and cached latents into per-head keys and values, then plain attention (vLLM)."""
    heads = mixer.num_heads // shard.parallel.tp
    act = element_bytes(shard.arch.activation_dtype)
    key = mixer.qk_nope_head_dim + mixer.qk_rope_head_dim
    per_token = act * heads * (key + mixer.v_head_dim)
    expand = gemm(
        "kv_b",
        count=count,
        m=requests * (new_tokens + context),
        n=heads * (mixer.qk_nope_head_dim + mixer.v_head_dim),
        k=mixer.kv_lora_rank,
        dtype=dtypes.attention,
        activation_dtype=shard.arch.activation_dtype,
        scale_bytes=dtypes.scale_bytes_per_element,
    )
    pairs = _pairs(new_tokens, context, 0, chunked=False)
    attend = Operator(
        name="mla_prefill",
        family="mla_prefill",
        count=count,
        dtype=shard.kv_dtype,
        dims={"batch": requests, "seq": new_tokens, "prefix": context, "heads": constant(heads, requests)},
        flops=2.0 * requests * pairs * heads * (key + mixer.v_head_dim),
        hbm_bytes=requests * per_token * (2.0 * new_tokens + context),
    )
    return [expand, attend]


def _decode_index(indexer: SparseIndexer | None, count: int, requests: Array, kv_tokens: Array) -> list[Operator]:
    if indexer is None or indexer.shared:
        return []
    dims = {"batch": requests, "kv_len": kv_tokens, "window": constant(0, requests)}
    return [_index(indexer, count, "attention_decode", requests, requests * kv_tokens, requests * kv_tokens, dims)]


def _prefill_index(
    indexer: SparseIndexer | None, count: int, requests: Array, new_tokens: Array, context: Array
) -> list[Operator]:
    if indexer is None or indexer.shared:
        return []
    pairs = requests * _pairs(new_tokens, context, 0, chunked=False)
    dims = {"batch": requests, "seq": new_tokens, "prefix": context, "window": constant(0, requests)}
    keys = requests * (new_tokens + context)
    return [_index(indexer, count, "attention_prefill", requests * new_tokens, pairs, keys, dims)]


def _index(
    indexer: SparseIndexer,
    count: int,
    family: Family,
    queries: Array,
    pairs: Array,
    keys: Array,
    dims: dict[str, Array],
) -> Operator:
    """Scores of all keys, 2 FLOPs an element and head (no values), and the top-k over fp32 scores.

    Priced as an fp8 attention of half the head size, which has the same FLOPs and cache bytes
    (DeepSeek-V3.2 technical report, section 2.1).
    """
    scores = {"heads": constant(indexer.num_heads, queries), "kv_heads": constant(1, queries)}
    return Operator(
        name="indexer",
        family=family,
        count=count,
        dtype="fp8",
        dims=dims | scores | {"head_dim": constant(indexer.head_dim / 2, queries)},
        flops=2.0 * pairs * indexer.num_heads * indexer.head_dim,
        hbm_bytes=keys * max(indexer.key_bytes, indexer.head_dim)
        + queries * indexer.num_heads * indexer.head_dim
        + 8.0 * pairs,
        launches=2,
    )


def _recurrence(
    shard: Shard, mixer: RecurrentMixer, count: int, tokens: Array, sequences: Array, name: str
) -> Operator:
    """A recurrence of `tokens` over `sequences`: the state is read and written once a sequence."""
    tp, act = shard.parallel.tp, element_bytes(shard.arch.activation_dtype)
    state = (mixer.state_elements * element_bytes(mixer.state_dtype) + mixer.conv_elements * act) / tp
    flops = tokens * _STATE_FLOPS.get(mixer.kind, 7.0) * mixer.state_elements / tp
    return Operator(
        name=name,
        family="recurrent",
        count=count,
        dtype=shard.arch.activation_dtype,
        dims={"tokens": tokens, "sequences": sequences},
        flops=flops,
        hbm_bytes=2.0 * sequences * state + tokens * act * recurrent_width(shard, mixer),
        launches=2,
    )
