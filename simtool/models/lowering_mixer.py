"""Token mixers: what attention, latent attention and recurrent layers do to every token, the KV cache left aside."""

from __future__ import annotations

from simtool.models.architecture import (
    Attention,
    LatentAttention,
    Mixer,
    RecurrentMixer,
    SparseIndexer,
    WeightDtypes,
)
from simtool.models.lowering_kernels import element_bytes, elementwise, projection
from simtool.models.lowering_shard import Shard, kv_heads_per_rank, latent_width
from simtool.models.operators import Array, Operator


def mixer_operators(shard: Shard, tokens: Array) -> list[Operator]:
    """Projections, rotary embedding and cache write of all mixers of the stage for `tokens` [b] of one rank."""
    operators: list[Operator] = []
    for mixer, dtypes, count in shard.mixers:
        match mixer:
            case Attention():
                operators += _attention(shard, mixer, dtypes, count, tokens)
            case LatentAttention():
                operators += _latent(shard, mixer, dtypes, count, tokens)
            case RecurrentMixer():
                operators += _recurrent(shard, mixer, dtypes, count, tokens)
    return operators


def _attention(shard: Shard, mixer: Attention, dtypes: WeightDtypes, count: int, tokens: Array) -> list[Operator]:
    """Fused q/k/v projection (column parallel, KV heads replicated below one a rank), output (row parallel)."""
    tp, hidden = shard.parallel.tp, shard.arch.hidden_size
    heads = mixer.num_heads // tp
    query = heads * mixer.head_dim
    key, value = _new_kv_elements(mixer, tp)
    projected = query * (2 if mixer.output_gate else 1) + key + (0 if mixer.tied_kv else value)
    act, cache = element_bytes(shard.arch.activation_dtype), element_bytes(shard.kv_dtype)
    # rotary reads and writes q and k; the cache write reads k and v and stores them
    moved = 2 * act * (query + key) + (act + cache) * (key + value)
    operators = [
        projection(shard, "qkv", count, tokens, projected, hidden, dtypes.attention, dtypes),
        elementwise(
            "rope_kv_write",
            count=count,
            tokens=tokens,
            bytes_per_token=moved,
            dtype=shard.arch.activation_dtype,
            launches=2,
            kind="rope",
        ),
        projection(shard, "o", count, tokens, hidden, heads * mixer.v_head_dim, dtypes.attention, dtypes),
    ]
    if mixer.output_gate:
        gate = 3 * act * heads * mixer.v_head_dim
        operators.append(
            elementwise(
                "output_gate", count=count, tokens=tokens, bytes_per_token=gate, dtype=shard.arch.activation_dtype
            )
        )
    return operators + _indexer(shard, mixer.indexer, dtypes, count, tokens, hidden)


def _new_kv_elements(mixer: Attention, tp: int) -> tuple[int, int]:
    """Key and value elements a token adds on one rank; none where the layer reads another layer's cache."""
    if mixer.kv_shared:
        return 0, 0
    kv_heads = kv_heads_per_rank(mixer, tp)
    return kv_heads * mixer.head_dim, kv_heads * mixer.v_head_dim


def _latent(shard: Shard, mixer: LatentAttention, dtypes: WeightDtypes, count: int, tokens: Array) -> list[Operator]:
    """MLA: replicated down projections, per-head up projection of the query, output (vLLM deepseek_v2.py).

    The up projection of keys and values belongs to the cache side (lowering_attention.py): prefill expands the latent
    with kv_b, decode absorbs kv_b into query and output.
    """
    tp, hidden = shard.parallel.tp, shard.arch.hidden_size
    heads, latent = mixer.num_heads // tp, latent_width(mixer)
    query = heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim)
    act, cache = element_bytes(shard.arch.activation_dtype), element_bytes(shard.kv_dtype)
    dtype = dtypes.attention
    if mixer.q_lora_rank:
        operators = [
            projection(shard, "qkv_a", count, tokens, mixer.q_lora_rank + latent, hidden, dtype, dtypes),
            projection(shard, "q_b", count, tokens, query, mixer.q_lora_rank, dtype, dtypes),
        ]
    else:
        operators = [
            projection(shard, "q", count, tokens, query, hidden, dtype, dtypes),
            projection(shard, "kv_a", count, tokens, latent, hidden, dtype, dtypes),
        ]
    if mixer.output_gate:
        operators.append(projection(shard, "gate", count, tokens, heads * mixer.v_head_dim, hidden, dtype, dtypes))
    rope = 2 * act * (heads + 1) * mixer.qk_rope_head_dim
    norms = 2 * act * (mixer.q_lora_rank + mixer.kv_lora_rank)
    moved = rope + norms + (act + cache) * latent
    operators += [
        elementwise(
            "rope_kv_write",
            count=count,
            tokens=tokens,
            bytes_per_token=moved,
            dtype=shard.arch.activation_dtype,
            launches=3,
            kind="rope",
        ),
        projection(shard, "o", count, tokens, hidden, heads * mixer.v_head_dim, dtype, dtypes),
    ]
    return operators + _indexer(shard, mixer.indexer, dtypes, count, tokens, mixer.q_lora_rank or hidden)


def _indexer(
    shard: Shard, indexer: SparseIndexer | None, dtypes: WeightDtypes, count: int, tokens: Array, query_width: int
) -> list[Operator]:
    """Projections of the lightning indexer, whole on every rank: query heads, one key, head weights."""
    if indexer is None or indexer.shared:
        return []
    hidden, query = shard.arch.hidden_size, indexer.num_heads * indexer.head_dim
    key_and_weights = indexer.head_dim + indexer.num_heads
    return [
        projection(shard, "indexer_q", count, tokens, query, query_width, dtypes.attention, dtypes),
        projection(shard, "indexer_k", count, tokens, key_and_weights, hidden, dtypes.attention, dtypes),
    ]


def _recurrent(shard: Shard, mixer: RecurrentMixer, dtypes: WeightDtypes, count: int, tokens: Array) -> list[Operator]:
    """Projections of a recurrent mixer: those into the model's width are row parallel, the rest column parallel."""
    tp, hidden = shard.parallel.tp, shard.arch.hidden_size
    operators = []
    for index, (rows, columns) in enumerate(mixer.projections):
        k, n = (rows / tp, columns) if columns == hidden else (rows, columns / tp)
        operators.append(projection(shard, f"recurrent_{index}", count, tokens, n, k, dtypes.recurrent, dtypes))
    return operators


def recurrent_width(shard: Shard, mixer: Mixer) -> float:
    """Elements a token brings into and out of the recurrence on one rank: what its projections produce and consume."""
    if not isinstance(mixer, RecurrentMixer):
        return 0.0
    hidden = shard.arch.hidden_size
    return sum(rows if columns == hidden else columns for rows, columns in mixer.projections) / shard.parallel.tp
