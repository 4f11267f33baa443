"""Attention over a paged cache: pages are gathered by block tables, then attended by torch's own attention.

A cache is [blocks, block_size, kv_heads, d] (a latent one [blocks, block_size, latent + rope]); a block table holds the
physical blocks of one request in the order of its tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def pages(cache: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """Pages of `tables` int64[batch, blocks a request] -> [batch, blocks x block_size, ...], contiguous."""
    found = cache.index_select(0, tables.view(-1))
    return found.view(tables.shape[0], tables.shape[1] * cache.shape[1], *cache.shape[2:])


def length_mask(lengths: torch.Tensor, longest: int, dtype: torch.dtype) -> torch.Tensor:
    """[batch, 1, 1, longest] added to scores: 0 for the first lengths[b] keys, minus infinity behind them."""
    beyond = torch.arange(longest, device=lengths.device)[None, :] >= lengths[:, None]
    mask = torch.zeros(beyond.shape, dtype=dtype, device=lengths.device)
    return mask.masked_fill_(beyond, float("-inf"))[:, None, None, :]


def paged_decode(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, tables: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """One query a request, [batch, kv_heads, heads a KV head, d], on its pages -> the same shape.

    A KV head's queries are rows of one small matrix. mask: `length_mask` over the longest request's whole pages.
    """
    k, v = pages(k_cache, tables).transpose(1, 2), pages(v_cache, tables).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def paged_prefill(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, table: torch.Tensor, total: int
) -> torch.Tensor:
    """[1, heads, new, d] queries, the last of `total` tokens whose keys are in the cache already -> the same shape."""
    k, v = pages(k_cache, table)[:, :total].transpose(1, 2), pages(v_cache, table)[:, :total].transpose(1, 2)
    return causal(q, k, v)


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
