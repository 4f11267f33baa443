"""Attention over a paged cache as plain torch runs it: causal prefill with and without earlier context, decode."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from simtool.calibration.kernels.attention import causal, length_mask, paged_decode, paged_prefill, pages
from simtool.calibration.kernels.latent import expanded, paged_absorbed
from simtool.calibration.points import KernelPoint
from simtool.calibration.profiling.arena import TORCH_DTYPES, Arena
from simtool.calibration.profiling.clock import Call, MakeCall
from simtool.calibration.profiling.design import PAGE

# Sizes of DeepSeek's latent attention, as fitted_work prices it.
LATENT, ROPE, NOPE, VALUE = 512, 64, 128, 128
BLOCK = int(PAGE)


def prefill(arena: Arena, point: KernelPoint) -> MakeCall:
    """Grouped-query causal attention of `seq` new tokens that also see `prefix` cached ones, a request at a time.

    With earlier context all keys are gathered from their pages, the new ones among them; without, they come as made.
    """
    dims = {name: int(value) for name, value in point.dims.items()}
    new, total, kv_heads, size = dims["seq"], dims["prefix"] + dims["seq"], dims["kv_heads"], dims["head_dim"]

    def one() -> Call:
        q = arena.take(point.dtype, 1, new, dims["heads"], size).transpose(1, 2)
        if not dims["prefix"]:
            k, v = (arena.take(point.dtype, 1, new, kv_heads, size).transpose(1, 2) for _ in range(2))
            return lambda: causal(q, k, v)
        table = tables(1, total, arena.device)
        caches = [arena.take(point.dtype, table.numel(), BLOCK, kv_heads, size) for _ in range(2)]
        return lambda: paged_prefill(q, caches[0], caches[1], table, total)

    return lambda: _one_by_one([one() for _ in range(dims["batch"])])


def mla_prefill(arena: Arena, point: KernelPoint) -> MakeCall:
    """Latent attention in its expanded form, a request at a time; with earlier context the latents are gathered.

    The projection of latents to keys and values is not in it: it is a GEMM of its own.
    """
    dims = {name: int(value) for name, value in point.dims.items()}
    new, total, heads = dims["seq"], dims["prefix"] + dims["seq"], dims["heads"]

    def one() -> Call:
        q = arena.take(point.dtype, new, heads, NOPE + ROPE)
        kv = arena.take(point.dtype, total, heads, NOPE + VALUE)
        if not dims["prefix"]:
            rope = arena.take(point.dtype, total, ROPE)
            return lambda: expanded(q, kv, rope)
        table = tables(1, total, arena.device)
        cache = arena.take(point.dtype, table.numel(), BLOCK, LATENT + ROPE)
        return lambda: expanded(q, kv, pages(cache, table)[0, :total, LATENT:])

    return lambda: _one_by_one([one() for _ in range(dims["batch"])])


def _one_by_one(calls: list[Call]) -> Call:
    def call() -> None:
        for each in calls:
            each()

    return call


def decode(arena: Arena, point: KernelPoint) -> MakeCall:
    """One query a request on its gathered pages, padded to the longest request's."""
    dims = {name: int(value) for name, value in point.dims.items()}
    batch, kv_heads, size = dims["batch"], dims["kv_heads"], dims["head_dim"]
    longest = dims.get("kv_max", dims["kv_len"])
    mask = request_mask(point, arena.device)

    def make() -> Call:
        q = arena.take(point.dtype, batch, kv_heads, dims["heads"] // kv_heads, size)
        table = tables(batch, longest, arena.device)
        caches = [arena.take(point.dtype, table.numel(), BLOCK, kv_heads, size) for _ in range(2)]
        return lambda: paged_decode(q, caches[0], caches[1], table, mask)

    return make


def mla_decode(arena: Arena, point: KernelPoint) -> MakeCall:
    """Latent attention in its absorbed form, on gathered pages of the latent cache."""
    batch, heads = int(point.dims["batch"]), int(point.dims["heads"])
    longest = int(point.dims.get("kv_max", point.dims["kv_len"]))
    mask = request_mask(point, arena.device)

    def make() -> Call:
        q = arena.take(point.dtype, batch, heads, NOPE + ROPE)
        table = tables(batch, longest, arena.device)
        cache = arena.take(point.dtype, table.numel(), BLOCK, LATENT + ROPE)
        to_latent = arena.take(point.dtype, heads, NOPE, LATENT)
        to_value = arena.take(point.dtype, heads, LATENT, VALUE)
        return lambda: paged_absorbed(q, cache, table, to_latent, to_value, mask)

    return make


def tables(batch: int, length: int, device: str) -> torch.Tensor:
    """Block tables of requests of `length` tokens whose blocks lie anywhere, int64[batch, blocks]."""
    blocks = -(-length // BLOCK)
    return torch.randperm(batch * blocks, device=device).view(batch, blocks)


def skewed_lengths(batch: int, mean: float, longest: int) -> NDArray[np.int64]:
    """Lengths of mean `mean` to rounding: as many of `longest` as an eighth of the batch (or fewer), the rest alike."""
    count = max(1, min(batch // 8, int((mean - 1) * batch / max(longest - 1, 1))))
    rest = max(1.0, (mean * batch - count * longest) / max(batch - count, 1))
    lengths = np.full(batch, round(rest), dtype=np.int64)
    lengths[:count] = longest
    return lengths


def request_mask(point: KernelPoint, device: str) -> torch.Tensor:
    """`length_mask` of a decode batch over whole pages of its longest request."""
    batch = int(point.dims["batch"])
    longest = int(point.dims.get("kv_max", point.dims["kv_len"]))
    lengths = skewed_lengths(batch, point.dims["kv_len"], longest)
    if "kv_max" not in point.dims:
        lengths[:] = longest
    whole = -(-longest // BLOCK) * BLOCK
    return length_mask(torch.from_numpy(lengths).to(device), whole, TORCH_DTYPES[point.dtype])
