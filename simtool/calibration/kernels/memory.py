"""Kernels that only move memory: norm with residual sum, rotary embedding with cache write, activation, sampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F

EPSILON = 1e-6  # of the root mean square


def add_norm(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """RMS norm of the sum of [tokens, width] and the residual, and the sum itself."""
    total = torch.add(x, residual)
    return F.rms_norm(total, weight.shape, weight, EPSILON), total


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of [tokens, heads, d], angles [tokens, 1, d/2]: the halves of d are the two coordinates."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def rope_and_write(
    heads: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """Rotate queries and keys and store keys and values; returns queries and keys, [tokens, query + KV heads, d].

    heads: [tokens, query + 2 x KV heads, d], queries first, values last. slots int64[tokens]: places in the caches,
    counted in tokens.
    """
    kv_heads = k_cache.shape[-2]
    turned = rotated(heads[:, :-kv_heads], cos, sin)
    write_rows(k_cache, slots, turned[:, -kv_heads:])
    write_rows(v_cache, slots, heads[:, -kv_heads:])
    return turned


def write_rows(cache: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor) -> None:
    """Store `rows` [tokens, ...] in a [blocks, block_size, ...] cache at `slots`."""
    cache.view(-1, *cache.shape[2:]).index_copy_(0, slots, rows)


def activated(product: torch.Tensor, width: int) -> torch.Tensor:
    """SiLU of the first `width` columns times the others; without others, SiLU alone."""
    return F.silu(product[:, :width]) * product[:, width:] if product.shape[1] > width else F.silu(product)


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """Probabilities of [tokens, vocabulary] logits in fp32, and the likeliest token, int64[tokens]."""
    return torch.softmax(logits.float(), dim=-1).argmax(dim=-1)
