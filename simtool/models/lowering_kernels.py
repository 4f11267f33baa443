"""One kernel each: shapes → FLOPs, HBM bytes, link bytes. Everything that lowers a layer builds from these.

Formulas (public: "How to Scale Your Model", jax-ml.github.io/scaling-book, chapters rooflines, inference, sharding):
a GEMM [m, k] x [k, n] is 2mnk FLOPs and reads its weights and inputs and writes its outputs once; a ring all-reduce
of B bytes over r ranks sends 2(r-1)/r B a device, an all-gather or reduce-scatter (r-1)/r B.
"""

from __future__ import annotations

import numpy as np

from simtool.models.architecture import WeightDtypes
from simtool.models.lowering_shard import Shard
from simtool.models.operators import ELEMENTWISE_KINDS, Array, Collective, Operator
from simtool.models.quantization import bytes_per_element
from simtool.units import DTYPE_BYTES

# Bytes an activation element has at a GEMM's input when the weights' format sets the compute precision (W8A8, W4A4);
# weight-only formats (int4, mxfp4 on Hopper) keep the activations as they are.
_INPUT_BYTES = {"fp8": 1.0, "int8": 1.0, "nvfp4": 0.5}
_LINK_SHARE = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0} | {
    "dispatch": 1.0,
    "combine": 1.0,
}


def constant(value: float, like: Array) -> Array:
    """`value` as an array of the shape of `like`."""
    return np.full(like.shape, float(value))


def element_bytes(dtype: str) -> float:
    """Bytes an activation or KV element takes."""
    return DTYPE_BYTES[dtype]


def gemm(
    name: str,
    *,
    count: int,
    m: Array,
    n: float,
    k: float,
    dtype: str,
    activation_dtype: str,
    scale_bytes: float | None = None,
) -> Operator:
    """[m, k] x [k, n] with weights [k, n] stored as `dtype`; scale_bytes an element (None: the dtype's usual block).

    Returns an Operator with dims m, n, k; entries with m = 0 are no work at all.
    """
    act = element_bytes(activation_dtype)
    weight_bytes = n * k * bytes_per_element(dtype, scale_bytes)
    moved = (m > 0) * weight_bytes + m * k * _INPUT_BYTES.get(dtype, act) + m * n * act
    dims = {"m": m, "n": constant(n, m), "k": constant(k, m)}
    return Operator(
        name=name,
        family="gemm",
        count=count,
        dtype=dtype,
        dims=dims,
        flops=2.0 * m * n * k,
        hbm_bytes=moved,
    )


def projection(
    shard: Shard, name: str, count: int, m: Array, n: float, k: float, dtype: str, dtypes: WeightDtypes
) -> Operator:
    """A GEMM of a shard's layer: the model's activation dtype, the layer's block scales."""
    return gemm(
        name,
        count=count,
        m=m,
        n=n,
        k=k,
        dtype=dtype,
        activation_dtype=shard.arch.activation_dtype,
        scale_bytes=dtypes.scale_bytes_per_element,
    )


def elementwise(
    name: str,
    *,
    count: int,
    tokens: Array,
    bytes_per_token: float,
    dtype: str,
    launches: int = 1,
    kind: str = "other",
) -> Operator:
    """A memory-bound kernel that reads and writes `bytes_per_token` for each of `tokens`; its FLOPs are left out.

    kind: one of ELEMENTWISE_KINDS.
    """
    return Operator(
        name=name,
        family="elementwise",
        count=count,
        dtype=dtype,
        dims={"tokens": tokens, "kind": constant(ELEMENTWISE_KINDS.index(kind), tokens)},
        flops=np.zeros_like(tokens),
        hbm_bytes=tokens * bytes_per_token,
        launches=launches,
    )


def collective(
    name: str, kind: Collective, *, count: int, message_bytes: Array, ranks: int, nodes: int, dtype: str
) -> Operator:
    """A collective of `ranks` devices on `nodes` nodes.

    message_bytes as nccl-tests prints it in its size column: all_reduce the buffer; all_gather the gathered result;
    reduce_scatter the whole input; all_to_all what a rank holds before sending; send_recv what one rank sends.
    link_bytes is what one device sends under a ring. HBM: the message is read once and written once.
    """
    share = 1.0 if kind == "send_recv" else _LINK_SHARE[kind] * (ranks - 1) / ranks
    dims = {"bytes": message_bytes, "ranks": constant(ranks, message_bytes), "nodes": constant(nodes, message_bytes)}
    return Operator(
        name=name,
        family="collective",
        count=count,
        dtype=dtype,
        dims=dims,
        flops=np.zeros_like(message_bytes),
        hbm_bytes=2.0 * message_bytes,
        link_bytes=message_bytes * share,
        collective=kind,
    )
