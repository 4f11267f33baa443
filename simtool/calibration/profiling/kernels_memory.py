"""Kernels that only move memory. Their bytes are what the lowering counts for them (passes.py)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from simtool.calibration.points import KernelPoint
from simtool.calibration.profiling.arena import Arena
from simtool.calibration.profiling.clock import Call, MakeCall

# The rotary head; shapes.py gives widths of whole heads.
ROPE_HEAD = 128


def elementwise(arena: Arena, point: KernelPoint) -> MakeCall:
    """The kernel that the point names, on `tokens` rows of `width`."""
    tokens, width, dtype = int(point.detail["tokens"]), int(point.detail["width"]), point.dtype

    def make() -> Call:
        if point.kernel == "silu_mul":
            # Apart, not halves of one row: the fused kernels of engines do not care for the width, torch's halves do.
            gate, up = arena.take(dtype, tokens, width), arena.take(dtype, tokens, width)
            return lambda: F.silu(gate) * up
        x = arena.take(dtype, tokens, width)
        if point.kernel == "rope":
            turn = arena.take(dtype, 2, tokens, 1, ROPE_HEAD // 2)
            heads = x.view(tokens, -1, ROPE_HEAD)
            return lambda: rotated(heads, turn[0], turn[1])
        other, weight = arena.take(dtype, tokens, width), arena.take(dtype, width)
        if point.kernel == "add+rms_norm":
            return lambda: F.rms_norm(torch.add(x, other), (width,), weight)
        return lambda: F.layer_norm(torch.add(x, other), (width,), weight)

    return make


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of [tokens, heads, d]: the halves of d are the two coordinates."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def embedding(arena: Arena, point: KernelPoint) -> MakeCall:
    """Random rows of a table."""
    tokens, width = int(point.detail["tokens"]), int(point.detail["width"])
    rows = min(int(point.detail["rows"]), arena.size_bytes // (8 * width))  # half an arena of fp32

    def make() -> Call:
        table = arena.take(point.dtype, rows, width)
        chosen = torch.randint(0, rows, (tokens,), device=arena.device)
        return lambda: F.embedding(chosen, table)

    return make


def sampling(arena: Arena, point: KernelPoint) -> MakeCall:
    """Probabilities of bf16 logits in fp32, and the likeliest token."""
    tokens, width = int(point.detail["tokens"]), int(point.detail["width"])

    def make() -> Call:
        logits = arena.take("bf16", tokens, width)
        return lambda: torch.softmax(logits.float(), dim=-1).argmax(dim=-1)

    return make
