"""Multi-head latent attention over a paged latent cache: absorbed for decodes, expanded for prefill."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from simtool.calibration.kernels.attention import causal, pages


def paged_absorbed(
    q: torch.Tensor,
    cache: torch.Tensor,
    tables: torch.Tensor,
    to_latent: torch.Tensor,
    to_value: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """[batch, heads, nope + rope] queries on their pages of a [blocks, block_size, latent + rope] cache.

    Returns [batch, heads, value]; mask: `length_mask`, over the longest request's whole pages.
    """
    return absorbed(q, pages(cache, tables), to_latent, to_value, mask[:, 0])


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


def expanded(q: torch.Tensor, kv: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """Causal attention of [new, heads, nope + rope] queries -> [new, heads, value].

    kv: [total, heads, nope + value], what kv_b makes of the latents; rope: [total, rope], the key part that all heads
    share. Values are padded to the width of the keys, as engines do for flash kernels, which want both alike.
    """
    turned, width = rope.shape[1], q.shape[2]
    nope, heads = width - turned, q.shape[1]
    value = kv.shape[2] - nope
    k = torch.cat((kv[:, :, :nope], rope[:, None, :].expand(-1, heads, -1)), dim=-1)
    v = F.pad(kv[:, :, nope:], (0, width - value))
    found = causal(*(part.transpose(0, 1).unsqueeze(0) for part in (q, k, v)))
    return found[0].transpose(0, 1)[:, :, :value]
