"""Dense and grouped GEMMs as plain torch runs them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from simtool.calibration.kernels.experts import expert_of, grouped_experts, looped_experts
from simtool.calibration.kernels.linear import scaled_linear
from simtool.calibration.points import KernelPoint
from simtool.calibration.profiling.arena import Arena
from simtool.calibration.profiling.clock import Call, MakeCall
from simtool.calibration.profiling.routing import expert_loads, local_loads

INT4_GROUP = 128  # weights that share a scale
INT4_TILES = 8  # of the CUDA int4 kernel's packed layout
FLOATS = ("fp32", "fp16", "bf16")


def gemm(arena: Arena, point: KernelPoint) -> MakeCall:
    """[m, k] x [n, k]^T. fp8 casts its activations first, as a static scale does; the others take them in bf16."""
    m, n, k = (int(point.dims[name]) for name in ("m", "n", "k"))
    if point.dtype in FLOATS:
        return lambda: _linear(arena.take(point.dtype, m, k), arena.take(point.dtype, n, k))
    if point.dtype == "fp8":
        return lambda: _scaled(arena.take("bf16", m, k), arena.take("fp8", n, k), torch.ones((), device=arena.device))
    if point.dtype == "int8_wo":
        return lambda: _int8(arena.take("bf16", m, k), arena.take("int8", n, k), arena.take("bf16", n))
    assert point.dtype == "int4", point.dtype
    return lambda: _int4(arena, m, n, k)


def _linear(x: torch.Tensor, weight: torch.Tensor) -> Call:
    return lambda: F.linear(x, weight)


def _scaled(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> Call:
    return lambda: scaled_linear(x, weight, scale, scale)


def _int8(x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> Call:
    return lambda: torch._weight_int8pack_mm(x, weight, scales)


def _int4(arena: Arena, m: int, n: int, k: int) -> Call:
    """The packed weights are random bits: every pattern is a matrix."""
    x, scales = arena.take("bf16", m, k), arena.take("bf16", k // INT4_GROUP, n, 2)
    if arena.device == "cpu":
        packed = arena.take("uint8", n, k // 2)
        return lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, INT4_GROUP, scales)
    packed = arena.take("int32", n // 8, k // (INT4_TILES * 16), 32, INT4_TILES // 2)
    return lambda: torch._weight_int4pack_mm(x, packed, INT4_GROUP, scales)


def moe(arena: Arena, point: KernelPoint) -> MakeCall:
    """Routed experts of one rank for all ranks' tokens, from the choice of experts on: rows sorted by expert and
    gathered, (gate and) up, activation, down, and the weighted sum a token.
    """
    dims = {name: int(value) for name, value in point.dims.items()}
    base, _, routing = point.kernel.partition(":")
    loads = expert_loads(dims["tokens"], dims["top_k"], dims["num_experts"], routing)
    loads = np.random.default_rng(0).permutation(local_loads(loads, dims["moe_ep"]))
    experts, hidden, inner = len(loads), dims["hidden"], dims["inter"] // dims["moe_tp"]
    chosen = torch.from_numpy(choices(loads, dims["tokens"], dims["top_k"])).to(arena.device)
    rows = loads.tolist()

    def make() -> Call:
        x = arena.take(point.dtype, dims["tokens"], hidden)
        weight = arena.take(point.dtype, dims["tokens"], dims["top_k"])
        up = arena.take(point.dtype, experts, (dims["matrices"] - 1) * inner, hidden)
        down = arena.take(point.dtype, experts, hidden, inner)
        if base.startswith("grouped_mm"):
            return lambda: grouped_experts(x, chosen, weight, up, down)
        return lambda: looped_experts(x, chosen, weight, experts, expert_of(up, down), rows)

    return make


def choices(loads: NDArray[np.int64], tokens: int, top_k: int) -> NDArray[np.int64]:
    """Experts of each token, [tokens, top_k], such that expert e has loads[e] rows; the rest is another rank's."""
    flat = np.full(tokens * top_k, len(loads), dtype=np.int64)
    local = np.repeat(np.arange(len(loads)), loads)
    flat[: len(local)] = local
    return np.random.default_rng(1).permutation(flat).reshape(tokens, top_k)
