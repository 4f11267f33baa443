"""Kernels that only move memory. Their bytes are what the lowering counts for them (passes.py)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from simtool.calibration.kernels.memory import activated, add_norm, likeliest, rope_and_write
from simtool.calibration.points import KernelPoint
from simtool.calibration.profiling.arena import Arena
from simtool.calibration.profiling.clock import Call, MakeCall

# The rotary head (shapes.py gives widths of whole heads), and tokens of a cache block.
ROPE_HEAD, BLOCK = 128, 16


def elementwise(arena: Arena, point: KernelPoint) -> MakeCall:
    """The kernel that the point names, on `tokens` rows of `width`."""
    tokens, width, dtype = int(point.detail["tokens"]), int(point.detail["width"]), point.dtype

    def make() -> Call:
        if point.kernel == "silu_mul":
            product = arena.take(dtype, tokens, 2 * width)
            return lambda: activated(product, width)
        if point.kernel == "rope+write":
            return _rope(arena, point, tokens, width // ROPE_HEAD)
        x, other, weight = arena.take(dtype, tokens, width), arena.take(dtype, tokens, width), arena.take(dtype, width)
        return lambda: add_norm(x, other, weight)

    return make


def _rope(arena: Arena, point: KernelPoint, tokens: int, heads: int) -> Call:
    """Queries and keys rotated, keys and values stored at places of a cache as large as themselves."""
    kv_heads, blocks = int(point.detail["kv_width"]) // ROPE_HEAD, -(-tokens // BLOCK)
    turn = arena.take(point.dtype, 2, tokens, 1, ROPE_HEAD // 2)
    rows = arena.take(point.dtype, tokens, heads + 2 * kv_heads, ROPE_HEAD)
    caches = [arena.take(point.dtype, blocks, BLOCK, kv_heads, ROPE_HEAD) for _ in range(2)]
    slots = torch.randperm(blocks * BLOCK, device=arena.device)[:tokens]
    return lambda: rope_and_write(rows, turn[0], turn[1], caches[0], caches[1], slots)


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
        return lambda: likeliest(logits)

    return make
