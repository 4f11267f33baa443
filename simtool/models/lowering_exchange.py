"""Dispatch and combine: how tokens of several data-parallel ranks meet the experts and come back."""

from __future__ import annotations

from dataclasses import replace

from simtool.models.architecture import MoeMlp, WeightDtypes
from simtool.models.lowering_kernels import collective, constant, element_bytes
from simtool.models.lowering_shard import Shard
from simtool.models.operators import Array, Operator
from simtool.models.routing.reach import reached_share

# DeepEP casts a token to FP8 with an fp32 scale for every 128 elements where the experts compute in FP8.
_SENT_BYTES = {"fp8": 1.0 + 4.0 / 128.0}


def exchange_operators(
    shard: Shard, mlp: MoeMlp, dtypes: WeightDtypes, width: int, count: int, total_tokens: Array
) -> list[Operator]:
    """Dispatch and combine of `total_tokens` [b] of all ranks; none with one rank (its TP group shares its tokens)."""
    if shard.parallel.dp == 1:
        return []
    if shard.parallel.sends_tokens:
        return _sent(shard, mlp, dtypes, width, count, total_tokens)
    return _gathered(shard, mlp, width, count, total_tokens)


def _gathered(shard: Shard, mlp: MoeMlp, width: int, count: int, total_tokens: Array) -> list[Operator]:
    """allgather_reducescatter, vLLM's default (`vllm/distributed/device_communicators/all2all.py`).

    Every device gathers all tokens' activations and expert choices, and the partial outputs are reduce-scattered. The
    group is the data-parallel one, or all tp x dp devices where tokens are also cut over TP.
    """
    parallel, act = shard.parallel, element_bytes(shard.arch.activation_dtype)
    choices = 8.0 * mlp.top_k  # fp32 weight and int32 id of each chosen expert
    out, back = total_tokens * (width * act + choices), total_tokens * width * act
    ranks = parallel.tp * parallel.dp if shard.sequence_parallel else parallel.dp
    place = {"count": count, "ranks": ranks, "nodes": shard.expert_nodes}
    dtype = shard.arch.activation_dtype
    return [
        collective("moe_dispatch", "all_gather", message_bytes=out, dtype=dtype, **place),
        collective("moe_combine", "reduce_scatter", message_bytes=back, dtype=dtype, **place),
    ]


def _sent(
    shard: Shard, mlp: MoeMlp, dtypes: WeightDtypes, width: int, count: int, total_tokens: Array
) -> list[Operator]:
    """DeepEP (deepseek-ai/DeepEP; arXiv 2412.19437, section 3.2.2), of the tokens that one device sends.

    High throughput: a token goes once to each other node that has one of its experts, and there, as at home, over
    NVLink once to each device that has one. Low latency: a copy for each expert, straight to its device.
    """
    parallel, act, nodes = shard.parallel, element_bytes(shard.arch.activation_dtype), shard.expert_nodes
    devices, elsewhere = parallel.tp * parallel.dp, (nodes - 1) / nodes
    own, low_latency = total_tokens / devices, parallel.all2all_backend == "deepep_low_latency"
    if low_latency:
        copies = float(mlp.top_k * parallel.moe_tp)
        across, inside = copies * elsewhere, copies / nodes
    else:
        across = reached_share(mlp, nodes) * nodes * elsewhere
        inside = reached_share(mlp, parallel.ep) * parallel.ep * parallel.moe_tp
    choices = 8.0 * mlp.top_k  # fp32 weight and int32 id of each chosen expert
    sizes = {
        "dispatch": width * _SENT_BYTES.get(dtypes.experts, act) + choices,
        "combine": width * act,
    }
    operators = []
    for kind, size in sizes.items():
        sent = collective(
            f"moe_{kind}",
            "dispatch" if kind == "dispatch" else "combine",
            count=count,
            message_bytes=own * inside * size,
            ranks=devices,
            nodes=nodes,
            dtype=shard.arch.activation_dtype,
        )
        away = own * across * size
        dims = {**sent.dims, "across": away, "low_latency": constant(low_latency, own)}
        hbm_bytes, link_bytes = sent.hbm_bytes + 2.0 * away, sent.link_bytes + away
        operators.append(replace(sent, dims=dims, hbm_bytes=hbm_bytes, link_bytes=link_bytes))
    return operators
