"""What a traced operator call computes: its family, dtype and dims out of the shapes that the profiler noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simtool.calibration.kineto_events import Call

DTYPES: Mapping[str, str] = {
    "c10::bfloat16": "bf16",
    "c10::half": "bf16",
    "float": "fp32",
    "c10::float8_e4m3fn": "fp8",
    "c10::float8_e5m2": "fp8",
    "signed char": "int8",
}
GEMM_INPUTS: Mapping[str, int] = {  # operator -> place of its left matrix
    "aten::mm": 0,
    "aten::addmm": 1,
    "aten::_scaled_mm": 0,
    "aten::_int_mm": 0,
}
# Attention operators with [batch, heads, tokens, head_dim] inputs -> the place of is_causal.
ATTENTION: Mapping[str, int] = {
    "aten::_scaled_dot_product_flash_attention": 4,
    "aten::_scaled_dot_product_flash_attention_for_cpu": 4,
    "aten::_scaled_dot_product_efficient_attention": 6,
    "aten::_scaled_dot_product_cudnn_attention": 6,
}
# The kernels below them, with [batch, tokens, heads, head_dim] inputs.
TOKENS_FIRST: Mapping[str, int] = {"aten::_flash_attention_forward": 8}
COLLECTIVES: Mapping[str, str] = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "_allgather_base": "all_gather",
    "allgather_into_tensor_coalesced": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter",
    "all_to_all": "all_to_all",
    "alltoall_base": "all_to_all",
    "all_to_allv": "all_to_all",
    "send": "send_recv",
}
ELEMENT_BYTES: Mapping[str, float] = {
    "float": 4.0,
    "half": 2.0,
    "bfloat16": 2.0,
    "float8_e4m3fn": 1.0,
    "float8_e5m2": 1.0,
    "char": 1.0,
    "byte": 1.0,
    "int": 4.0,
    "long": 8.0,
    "double": 8.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One operator call; dims as pairs, so that calls of one shape are equal."""

    family: str
    dtype: str
    dims: tuple[tuple[str, float], ...]


def recognised(call: Call) -> Call | None:
    """The outermost operator that is read among `call` and what it runs inside of."""
    found = None
    at: Call | None = call
    while at is not None:
        if at.name in GEMM_INPUTS or at.name in ATTENTION or at.name in TOKENS_FIRST:
            found = at
        at = at.owner
    return found


def operator_of(call: Call, kernels: Sequence[str]) -> Point | str:
    """The call as a point, or why it is none."""
    dims, types = call.args.get("Input Dims"), call.args.get("Input type")
    if not isinstance(dims, list) or not isinstance(types, list):
        return "no shapes"
    try:
        if call.name in GEMM_INPUTS:
            return _gemm(dims, types, GEMM_INPUTS[call.name], kernels)
        return _attention(call, dims, types)
    except (IndexError, TypeError, ValueError, KeyError):
        return "unknown shapes"


def _gemm(dims: Sequence[Any], types: Sequence[Any], first: int, kernels: Sequence[str]) -> Point | str:
    (m, k), (depth, n) = dims[first], dims[first + 1]
    if depth != k:
        return "unknown shapes"
    dtype = DTYPES.get(str(types[first]).lower())
    if dtype is None:
        return f"dtype {types[first]}"
    if dtype == "fp32" and any("tf32" in kernel or "s1688" in kernel for kernel in kernels):
        return "fp32 computed as TF32"
    return Point(family="gemm", dtype=dtype, dims=(("m", float(m)), ("n", float(n)), ("k", float(k))))


def _attention(call: Call, dims: Sequence[Any], types: Sequence[Any]) -> Point | str:
    query, key = dims[0], dims[1]
    if call.name in TOKENS_FIRST:
        query, key = [query[0], query[2], query[1], query[3]], [key[0], key[2], key[1], key[3]]
    (batch, heads, tokens, head_dim), (_, kv_heads, length, _) = query, key
    dtype = DTYPES.get(str(types[0]).lower())
    if dtype != "bf16" and dtype != "fp32":
        return f"dtype {types[0]}"
    shape = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "window": 0}
    if tokens == 1:
        return _point("attention_decode", dtype, shape | {"kv_len": length})
    place = ATTENTION.get(call.name, TOKENS_FIRST.get(call.name, 0))
    concrete = call.args.get("Concrete Inputs")
    causal = isinstance(concrete, list) and str(concrete[place]).lower() == "true"
    if not causal:
        return "not causal, or not told"
    if tokens != length:
        return "causal with a cache"  # torch aligns its mask at the first key, an engine at the last
    return _point("attention_prefill", dtype, shape | {"seq": tokens, "prefix": 0})


def _point(family: str, dtype: str, dims: Mapping[str, float]) -> Point:
    return Point(family=family, dtype=dtype, dims=tuple((name, float(size)) for name, size in dims.items()))


def collective_of(args: Mapping[str, Any]) -> tuple[str, int, float] | str:
    """(kind, ranks, bytes of the larger buffer) of a collective, or what it is called instead."""
    name = str(args.get("Collective name"))
    kind = COLLECTIVES.get(name)
    width = ELEMENT_BYTES.get(str(args.get("dtype")).lower())
    if kind is None or width is None:
        return f"collective {name} of {args.get('dtype')}"
    try:
        sent, received = (int(args[f"{way} msg nelems"]) for way in ("In", "Out"))
        ranks = int(args["Group size"])
    except (KeyError, TypeError, ValueError):
        return f"collective {name} (no sizes)"
    if ranks < 2:
        return f"collective {name} of one rank"
    return kind, ranks, width * max(sent, received)
