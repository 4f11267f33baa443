"""GroupedAttention: softmax attention (MHA, GQA, MQA) of one layer on one rank, over its pages."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from simtool.calibration.executor.calls import Calls
from simtool.calibration.executor.linear import Linear
from simtool.calibration.executor.site import LayerSite
from simtool.calibration.executor.step import Step
from simtool.calibration.executor.weights import Weights, share
from simtool.calibration.kernels.attention import causal, paged_decode, paged_prefill
from simtool.calibration.kernels.memory import EPSILON, rope_and_write
from simtool.models.architecture import Attention
from simtool.models.lowering_shard import kv_heads_per_rank


class GroupedAttention:
    """Query heads cut over the tensor-parallel ranks, KV heads too; repeated where there are fewer than ranks.

    caches: keys and values, [blocks, block_size, kv_heads, head_dim] each.
    """

    def __init__(self, mixer: Attention, site: LayerSite) -> None:
        layer, hidden, weights, ranks = site.index, site.hidden, site.weights, site.ranks
        stored = site.dtypes.attention
        tp, place = ranks.parallel.tp, ranks.place.tp_rank
        self._heads, self._kv_heads, self._size = mixer.num_heads // tp, kv_heads_per_rank(mixer, tp), mixer.head_dim
        first = place * mixer.num_kv_heads // tp
        query = share(mixer.num_heads * mixer.head_dim, tp, place)
        key = slice(first * mixer.head_dim, (first + self._kv_heads) * mixer.head_dim)
        cuts = {"q": (mixer.num_heads, query), "k": (mixer.num_kv_heads, key), "v": (mixer.num_kv_heads, key)}
        parts = [weights.matrix(layer, name, n * mixer.head_dim, hidden, cut) for name, (n, cut) in cuts.items()]
        bias = None
        if mixer.qkv_bias:
            bias = torch.cat(
                [weights.vector(layer, f"{name}_bias", n * mixer.head_dim, cut) for name, (n, cut) in cuts.items()]
            )
        self._qkv = Linear(torch.cat(parts), bias, stored)
        width = mixer.num_heads * mixer.head_dim
        self._o = Linear(weights.matrix(layer, "o", hidden, width, cut_columns=query), None, stored)
        self._norm = _head_norms(mixer, layer, weights, self._heads, self._kv_heads)
        shape = (*site.blocks, self._kv_heads, mixer.head_dim)
        self.caches = tuple(torch.zeros(shape, dtype=weights.dtype, device=weights.device) for _ in range(2))

    def calls(self, x: torch.Tensor, step: Step) -> Calls[torch.Tensor]:
        """[tokens, hidden] -> this rank's part of the sum [tokens, hidden]; begins within a call."""
        timer, inputs = step.timer, step.inputs
        heads = timer.run("gemm", self._qkv, x).view(len(x), self._heads + 2 * self._kv_heads, self._size)
        if self._norm is not None:
            heads = timer.run("elementwise", self._normed, heads)
        keys, values = self.caches
        turned = timer.run("elementwise", rope_and_write, heads, inputs.cos, inputs.sin, keys, values, inputs.slots)
        yield ("attention",)
        step.crossed(heads, turned)
        parts = []
        if inputs.decodes:
            q = turned[: inputs.decodes, : self._heads].reshape(inputs.decodes, self._kv_heads, -1, self._size)
            found = timer.run("attention_decode", paged_decode, q, keys, values, inputs.tables, inputs.mask)
            parts.append(found.reshape(inputs.decodes, -1))
        for chunk in inputs.chunks:
            rows = slice(chunk.start, chunk.start + chunk.new)
            q, k = turned[None, rows, : self._heads].transpose(1, 2), turned[None, rows, self._heads :].transpose(1, 2)
            if chunk.table is None:
                v = heads[None, rows, -self._kv_heads :].transpose(1, 2)
                found = timer.run("attention_prefill", causal, q, k, v)
            else:
                found = timer.run("attention_prefill", paged_prefill, q, keys, values, chunk.table, chunk.total)
            parts.append(found[0].transpose(0, 1).reshape(chunk.new, -1))
        mixed = parts[0] if len(parts) == 1 else torch.cat(parts) if parts else x.new_zeros(0, self._heads * self._size)
        yield ("o",)
        step.crossed(mixed)
        return timer.run("gemm", self._o, mixed)

    def _normed(self, heads: torch.Tensor) -> torch.Tensor:
        assert self._norm is not None
        turning = F.rms_norm(heads[:, : -self._kv_heads], (self._size,), None, EPSILON) * self._norm
        return torch.cat((turning, heads[:, -self._kv_heads :]), dim=1)


def _head_norms(mixer: Attention, layer: int, weights: Weights, heads: int, kv_heads: int) -> torch.Tensor | None:
    """Weights of the RMS norm of each query and key head, [heads + kv_heads, head_dim]; None: no such norm."""
    if not mixer.extra_params:
        return None
    query, key = (weights.norm(layer, name, mixer.head_dim) for name in ("q_norm", "k_norm"))
    return torch.cat((query.expand(heads, -1), key.expand(kv_heads, -1)))
