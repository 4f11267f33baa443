"""Lowering: architecture x parallel plan x batch → the operators that one device runs in one step of one stage.

A step's work falls into parts, each a function of few numbers: a rank's tokens, all ranks' tokens (experts), decodes
and their KV lengths, prefill chunks, sampled tokens. `lower` joins them for a column of whole steps; the compiler of
step tables asks for the parts one by one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simtool.models.architecture import ModelArchitecture, MoeMlp
from simtool.models.lowering_attention import decode_operators, prefill_operators
from simtool.models.lowering_kernels import collective, element_bytes, elementwise, gemm
from simtool.models.lowering_mixer import mixer_operators
from simtool.models.lowering_mlp import expert_operators, mlp_operators
from simtool.models.lowering_shard import Shard, make_shard
from simtool.models.operators import Array, Operator, StepBatch
from simtool.plan import Parallel

# Passes over the fp32 logits that sampling makes: cast from bf16 (1.5 passes), temperature or softmax, arg max
# (vLLM v1/sample/sampler.py without top-k/top-p).
_SAMPLER_PASSES = 4.5


def lower(
    arch: ModelArchitecture,
    parallel: Parallel,
    stage: int,
    batch: StepBatch,
    *,
    kv_dtype: str = "auto",
    devices_per_node: int = 0,
) -> list[Operator]:
    """Operators that one device of one data-parallel rank runs in a step of pipeline stage `stage`.

    `count` says how many times a step runs an operator (equal layers are one entry). devices_per_node 0: the replica is
    within one node. A part that no step of the column has (no decodes, say) is left out. Raises InputError where heads
    or experts cannot be cut evenly.
    """
    shard = make_shard(arch, parallel, stage, kv_dtype=kv_dtype, devices_per_node=devices_per_node)
    tokens = batch.prefill_tokens + batch.decode_requests
    operators = token_operators(shard, tokens) + expert_operators(shard, batch.total_tokens)
    if batch.prefill_requests.any():
        each = batch.prefill_tokens / np.maximum(batch.prefill_requests, 1.0)
        operators += prefill_operators(shard, batch.prefill_requests, each, batch.prefill_context)
    if batch.decode_requests.any():
        mean = batch.decode_kv_tokens / np.maximum(batch.decode_requests, 1.0)
        operators += decode_operators(shard, batch.decode_requests, mean, beside_prefill=batch.prefill_requests)
    if shard.last and batch.sampled.any():
        operators += head_operators(shard, batch.sampled)
    return operators + transfer_operators(shard, tokens)


def token_operators(shard: Shard, tokens: Array) -> list[Operator]:
    """What depends on the rank's `tokens` [b] only: embedding, projections, norms, MLPs, TP collectives."""
    operators = _embedding(shard, tokens) if shard.first else []
    operators += mixer_operators(shard, tokens) + mlp_operators(shard, tokens)
    operators += _norms(shard, tokens) + _tensor_collectives(shard, tokens)
    return [operator for operator in operators if operator.count]


def head_operators(shard: Shard, sampled: Array) -> list[Operator]:
    """LM head (vocabulary cut over TP), gathering of logits, sampling, for `sampled` [b] tokens of one rank."""
    arch, tp = shard.arch, shard.parallel.tp
    act = element_bytes(arch.activation_dtype)
    operators = [
        gemm(
            "lm_head",
            count=1,
            m=sampled,
            n=arch.vocab_size / tp,
            k=arch.hidden_size,
            dtype=arch.dtypes.lm_head,
            activation_dtype=arch.activation_dtype,
            scale_bytes=arch.dtypes.scale_bytes_per_element,
        )
    ]
    if tp > 1:
        logits = sampled * arch.vocab_size * act
        operators.append(_tensor(shard, "logits_all_gather", "all_gather", 1, logits))
    moved = 4.0 * _SAMPLER_PASSES * arch.vocab_size
    sampler = elementwise("sampling", count=1, tokens=sampled, bytes_per_token=moved, dtype="fp32", launches=4)
    return [*operators, replace(sampler, family="sampling")]


def transfer_operators(shard: Shard, tokens: Array) -> list[Operator]:
    """Activations to the next stage: hidden states and residual, each TP rank sends its share, the next stage gathers.

    Source: vLLM `IntermediateTensors` (hidden_states, residual), `send_tensor_dict(all_gather_group=tp)`.
    """
    if shard.last:
        return []
    size = 2.0 * tokens * shard.arch.hidden_size * element_bytes(shard.arch.activation_dtype)
    tp = shard.parallel.tp
    operators = [
        collective(
            "stage_send",
            "send_recv",
            count=1,
            message_bytes=size / tp,
            ranks=2,
            nodes=shard.next_stage_nodes,
            dtype=shard.arch.activation_dtype,
        )
    ]
    if tp > 1:
        operators.append(_tensor(shard, "stage_gather", "all_gather", 1, size))
    return operators


def _embedding(shard: Shard, tokens: Array) -> list[Operator]:
    """One row read and written a token; the vocabulary is cut over TP, so the rows are summed over the group."""
    arch = shard.arch
    row = arch.hidden_size * element_bytes(arch.activation_dtype)
    lookup = Operator(
        name="embedding",
        family="embedding",
        count=1,
        dtype=arch.activation_dtype,
        dims={"tokens": tokens},
        flops=np.zeros_like(tokens),
        hbm_bytes=2.0 * tokens * row,
    )
    if shard.parallel.tp == 1:
        return [lookup]
    return [lookup, _tensor(shard, "embedding_all_reduce", "all_reduce", 1, tokens * row)]


def _norms(shard: Shard, tokens: Array) -> list[Operator]:
    """A norm fused with the residual sum before every mixer and MLP (reads and writes both); a final one at the end."""
    count = sum(count for *_, count in shard.mixers) + sum(count for *_, count in shard.mlps) + int(shard.last)
    moved = 4.0 * shard.arch.hidden_size * element_bytes(shard.arch.activation_dtype)
    dtype = shard.arch.activation_dtype
    return [elementwise("norm_residual", count=count, tokens=tokens, bytes_per_token=moved, dtype=dtype, kind="norm")]


def _tensor_collectives(shard: Shard, tokens: Array) -> list[Operator]:
    """All-reduce of [tokens, hidden] after every mixer and every MLP (vLLM RowParallelLinear, FusedMoE).

    Mixture layers of several data-parallel ranks: sequence-parallel ones gather the tokens back over TP instead.
    """
    if shard.parallel.tp == 1:
        return []
    size = tokens * shard.arch.hidden_size * element_bytes(shard.arch.activation_dtype)
    mixtures = sum(count for mlp, _, count in shard.mlps if isinstance(mlp, MoeMlp))
    reduces = sum(count for *_, count in shard.mixers) + sum(count for *_, count in shard.mlps)
    operators = []
    if shard.sequence_parallel and mixtures:
        reduces -= mixtures
        operators.append(_tensor(shard, "moe_all_gather", "all_gather", mixtures, size))
    operators.append(_tensor(shard, "tp_all_reduce", "all_reduce", reduces, size))
    return operators


def _tensor(shard: Shard, name: str, kind: str, count: int, message_bytes: Array) -> Operator:
    return collective(
        name,
        "all_reduce" if kind == "all_reduce" else "all_gather",
        count=count,
        message_bytes=message_bytes,
        ranks=shard.parallel.tp,
        nodes=shard.tp_nodes,
        dtype=shard.arch.activation_dtype,
    )
