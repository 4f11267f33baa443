"""Dense and grouped GEMMs as plain torch runs them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from simtool.calibration.points import KernelPoint
from simtool.calibration.profiling.arena import TORCH_DTYPES, Arena
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
    narrow = TORCH_DTYPES["fp8"]
    return lambda: torch._scaled_mm(x.to(narrow), weight.t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16)


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
    """Routed experts of one rank on rows sorted by expert: (gate and) up, activation, down. No dispatch or combine."""
    dims = {name: int(value) for name, value in point.dims.items()}
    base, _, routing = point.kernel.partition(":")
    loads = expert_loads(dims["tokens"], dims["top_k"], dims["num_experts"], routing)
    loads = np.random.default_rng(0).permutation(local_loads(loads, dims["moe_ep"]))
    rows, experts = int(loads.sum()), len(loads)
    hidden, inner = dims["hidden"], dims["inter"] // dims["moe_tp"]
    branches = dims["matrices"] - 1
    ends = torch.tensor(np.cumsum(loads), dtype=torch.int32, device=arena.device)

    def make() -> Call:
        x = arena.take(point.dtype, max(rows, 1), hidden)
        up = arena.take(point.dtype, experts, branches * inner, hidden)
        down = arena.take(point.dtype, experts, hidden, inner)
        if base.startswith("grouped_mm"):
            return lambda: run_grouped(x, up, down, ends)
        return lambda: run_loop(x, up, down, loads)

    return make


def run_grouped(x: torch.Tensor, up: torch.Tensor, down: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Two grouped GEMMs over all experts; `ends` [E]: the row after each expert's last."""
    inner = _activated(torch._grouped_mm(x, up.transpose(-2, -1), offs=ends), down.shape[-1])
    return torch._grouped_mm(inner, down.transpose(-2, -1), offs=ends)


def run_loop(x: torch.Tensor, up: torch.Tensor, down: torch.Tensor, loads: np.ndarray) -> torch.Tensor:
    """One expert after the other; idle ones cost nothing. loads [E]: rows of each."""
    parts, start = [], 0
    for expert, load in enumerate(loads.tolist()):
        if load:
            inner = _activated(F.linear(x[start : start + load], up[expert]), down.shape[-1])
            parts.append(F.linear(inner, down[expert]))
            start += load
    return torch.cat(parts)


def _activated(product: torch.Tensor, width: int) -> torch.Tensor:
    """SiLU of the first half times the second; without a gate, SiLU alone."""
    return F.silu(product[:, :width]) * product[:, width:] if product.shape[1] > width else F.silu(product)
