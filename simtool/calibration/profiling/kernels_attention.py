"""Attention as plain torch runs it: causal prefill with and without earlier context, decode over a padded cache."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from simtool.calibration.points import KernelPoint
from simtool.calibration.profiling.arena import TORCH_DTYPES, Arena
from simtool.calibration.profiling.clock import Call, MakeCall

# Sizes of DeepSeek's latent attention, as fitted_work prices it.
LATENT, ROPE, NOPE, VALUE = 512, 64, 128, 128


def prefill(arena: Arena, point: KernelPoint) -> MakeCall:
    """Grouped-query causal attention of `seq` new tokens that also see `prefix` cached ones."""
    dims = {name: int(value) for name, value in point.dims.items()}
    batch, new, total = dims["batch"], dims["seq"], dims["prefix"] + dims["seq"]

    def make() -> Call:
        q = arena.take(point.dtype, batch, new, dims["heads"], dims["head_dim"]).transpose(1, 2)
        k = arena.take(point.dtype, batch, total, dims["kv_heads"], dims["head_dim"]).transpose(1, 2)
        v = arena.take(point.dtype, batch, total, dims["kv_heads"], dims["head_dim"]).transpose(1, 2)
        return lambda: causal(q, k, v)

    return make


def mla_prefill(arena: Arena, point: KernelPoint) -> MakeCall:
    """Latent attention in its expanded form: as many key heads as query heads.

    Values are padded to the width of the keys, as engines do for flash kernels, which want both alike.
    """
    dims = {name: int(value) for name, value in point.dims.items()}
    batch, new, total, heads = dims["batch"], dims["seq"], dims["prefix"] + dims["seq"], dims["heads"]

    def make() -> Call:
        q = arena.take(point.dtype, batch, new, heads, NOPE + ROPE).transpose(1, 2)
        k = arena.take(point.dtype, batch, total, heads, NOPE + ROPE).transpose(1, 2)
        v = arena.take(point.dtype, batch, total, heads, NOPE + ROPE).transpose(1, 2)
        return lambda: causal(q, k, v)

    return make


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """[batch, heads, new, d] queries on [batch, kv_heads, total, d] keys and values: query i sees total - new + i + 1.

    With earlier context a GPU's flash kernel skips what is not seen. The CPU's would add a mask to all of it, so there
    the context and the new tokens are attended apart and merged by their log sums of exponentials, as engines do.
    """
    grouped, earlier = q.shape[1] != k.shape[1], k.shape[2] - q.shape[2]
    if earlier == 0:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    if q.device.type != "cpu":
        from torch.nn.attention.bias import causal_lower_right

        mask = causal_lower_right(q.shape[2], k.shape[2])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
    return _merged(q, k, v, earlier)


def _merged(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, earlier: int) -> torch.Tensor:
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    context, seen = attend(q, k[:, :, :earlier], v[:, :, :earlier])
    own, alone = attend(q, k[:, :, earlier:], v[:, :, earlier:], is_causal=True)
    share = torch.sigmoid(seen - alone).unsqueeze(-1).to(q.dtype)
    return torch.lerp(own, context, share)


def decode(arena: Arena, point: KernelPoint) -> MakeCall:
    """One query a request on a cache padded to the longest; a KV head's queries are rows of one small matrix."""
    dims = {name: int(value) for name, value in point.dims.items()}
    batch, kv_heads, size = dims["batch"], dims["kv_heads"], dims["head_dim"]
    mask = length_mask(point, arena.device)
    longest = dims.get("kv_max", dims["kv_len"])

    def make() -> Call:
        q = arena.take(point.dtype, batch, kv_heads, dims["heads"] // kv_heads, size)
        k = arena.take(point.dtype, batch, longest, kv_heads, size).transpose(1, 2)
        v = arena.take(point.dtype, batch, longest, kv_heads, size).transpose(1, 2)
        return lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return make


def skewed_lengths(batch: int, mean: float, longest: int) -> NDArray[np.int64]:
    """Lengths of mean `mean` to rounding: as many of `longest` as an eighth of the batch (or fewer), the rest alike."""
    count = max(1, min(batch // 8, int((mean - 1) * batch / max(longest - 1, 1))))
    rest = max(1.0, (mean * batch - count * longest) / max(batch - count, 1))
    lengths = np.full(batch, round(rest), dtype=np.int64)
    lengths[:count] = longest
    return lengths


def length_mask(point: KernelPoint, device: str) -> torch.Tensor | None:
    """[batch, 1, 1, kv_max] added to the scores of a batch of unlike lengths; None where all are equal."""
    if "kv_max" not in point.dims:
        return None
    batch, longest = int(point.dims["batch"]), int(point.dims["kv_max"])
    lengths = skewed_lengths(batch, point.dims["kv_len"], longest)
    beyond = np.arange(longest)[None, :] >= lengths[:, None]
    mask = torch.zeros(batch, longest, dtype=TORCH_DTYPES[point.dtype])
    mask.masked_fill_(torch.from_numpy(beyond), float("-inf"))
    return mask[:, None, None, :].to(device)


def mla_decode(arena: Arena, point: KernelPoint) -> MakeCall:
    """Latent attention in its absorbed form, over a padded latent cache."""
    batch, heads = int(point.dims["batch"]), int(point.dims["heads"])
    longest = int(point.dims.get("kv_max", point.dims["kv_len"]))
    mask = length_mask(point, arena.device)
    mask = None if mask is None else mask[:, 0]

    def make() -> Call:
        q = arena.take(point.dtype, batch, heads, NOPE + ROPE)
        cache = arena.take(point.dtype, batch, longest, LATENT + ROPE)
        to_latent = arena.take(point.dtype, heads, NOPE, LATENT)
        to_value = arena.take(point.dtype, heads, LATENT, VALUE)
        return lambda: absorbed(q, cache, to_latent, to_value, mask)

    return make


def absorbed(
    q: torch.Tensor,
    cache: torch.Tensor,
    to_latent: torch.Tensor,
    to_value: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """[batch, heads, nope + rope] queries on a [batch, length, latent + rope] cache -> [batch, heads, value].

    The query goes into the latent space, all heads share the latent key, and the value is its first part projected.
    """
    nope, latent = to_latent.shape[1], to_latent.shape[2]
    query = torch.bmm(q[:, :, :nope].transpose(0, 1), to_latent).transpose(0, 1)
    query = torch.cat((query, q[:, :, nope:]), dim=-1) * q.shape[-1] ** -0.5
    scores = torch.bmm(query, cache.transpose(1, 2))
    scores = scores if mask is None else scores + mask
    seen = torch.bmm(torch.softmax(scores, dim=-1), cache[:, :, :latent])
    return torch.bmm(seen.transpose(0, 1), to_value).transpose(0, 1)
