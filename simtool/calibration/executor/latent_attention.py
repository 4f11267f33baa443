"""LatentMixer: multi-head latent attention of one layer on one rank; absorbed for decodes, expanded for prefill."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from simtool.calibration.executor.calls import Calls
from simtool.calibration.executor.inputs import Chunk, StepInputs
from simtool.calibration.executor.linear import Linear
from simtool.calibration.executor.site import LayerSite
from simtool.calibration.executor.step import Step
from simtool.calibration.executor.weights import share
from simtool.calibration.kernels.attention import pages
from simtool.calibration.kernels.latent import expanded, paged_absorbed
from simtool.calibration.kernels.memory import EPSILON, rotated, write_rows
from simtool.models.architecture import LatentAttention
from simtool.models.lowering_shard import latent_width


class LatentMixer:
    """Down projections whole on every rank, heads cut over the tensor-parallel ranks.

    caches: one of latents and rotary keys, [blocks, block_size, kv_lora_rank + qk_rope_head_dim].
    """

    def __init__(self, mixer: LatentAttention, site: LayerSite) -> None:
        layer, hidden, weights, ranks = site.index, site.hidden, site.weights, site.ranks
        stored = site.dtypes.attention
        tp, place = ranks.parallel.tp, ranks.place.tp_rank
        self._mixer, self._heads = mixer, mixer.num_heads // tp
        self._key = key = mixer.qk_nope_head_dim + mixer.qk_rope_head_dim
        query = share(mixer.num_heads * key, tp, place)
        kv_a = weights.matrix(layer, "kv_a", latent_width(mixer), hidden)
        if mixer.q_lora_rank:
            q_a = weights.matrix(layer, "q_a", mixer.q_lora_rank, hidden)
            self._down = Linear(torch.cat((q_a, kv_a)), None, stored)
            self._q_norm = weights.norm(layer, "q_a_norm", mixer.q_lora_rank)
        else:
            self._down = Linear(kv_a, None, stored)
        source = mixer.q_lora_rank or hidden
        self._q = Linear(weights.matrix(layer, "q", mixer.num_heads * key, source, query), None, stored)
        self._kv_norm = weights.norm(layer, "kv_a_norm", mixer.kv_lora_rank)
        each = mixer.qk_nope_head_dim + mixer.v_head_dim
        up = share(mixer.num_heads * each, tp, place)
        kv_b = weights.matrix(layer, "kv_b", mixer.num_heads * each, mixer.kv_lora_rank, up)
        self._kv_b = Linear(kv_b, None, stored)
        by_head = kv_b.view(self._heads, each, mixer.kv_lora_rank)
        self._to_latent = by_head[:, : mixer.qk_nope_head_dim].contiguous()
        self._to_value = by_head[:, mixer.qk_nope_head_dim :].transpose(1, 2).contiguous()
        output = share(mixer.num_heads * mixer.v_head_dim, tp, place)
        width = mixer.num_heads * mixer.v_head_dim
        self._o = Linear(weights.matrix(layer, "o", hidden, width, cut_columns=output), None, stored)
        cache = torch.zeros((*site.blocks, latent_width(mixer)), dtype=weights.dtype, device=weights.device)
        self.caches = (cache,)

    def calls(self, x: torch.Tensor, step: Step) -> Calls[torch.Tensor]:
        """[tokens, hidden] -> this rank's part of the sum [tokens, hidden]; begins within a call."""
        timer, inputs, rank = step.timer, step.inputs, self._mixer.q_lora_rank
        down = timer.run("gemm", self._down, x)
        compressed = timer.run("elementwise", self._query_norm, down[:, :rank]) if rank else x
        query = timer.run("gemm", self._q, compressed).view(len(x), self._heads, self._key)
        query, latents = timer.run("elementwise", self._turn_and_write, query, down[:, rank:], inputs)
        yield ("attention",)
        step.crossed(query, latents)
        parts = []
        if inputs.decodes:
            q, cache = query[: inputs.decodes], self.caches[0]
            weights = self._to_latent, self._to_value
            found = timer.run("mla_decode", paged_absorbed, q, cache, inputs.tables, *weights, inputs.mask)
            parts.append(found.reshape(inputs.decodes, -1))
        parts += [self._prefill(query, latents, chunk, step) for chunk in inputs.chunks]
        width = self._heads * self._mixer.v_head_dim
        mixed = parts[0] if len(parts) == 1 else torch.cat(parts) if parts else x.new_zeros(0, width)
        yield ("o",)
        step.crossed(mixed)
        return timer.run("gemm", self._o, mixed)

    def _query_norm(self, query: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(query, self._q_norm.shape, self._q_norm, EPSILON)

    def _turn_and_write(
        self, query: torch.Tensor, down: torch.Tensor, inputs: StepInputs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries with their rotary part turned; and latents [tokens, latent + rope] as they are stored."""
        latent, nope = self._mixer.kv_lora_rank, self._mixer.qk_nope_head_dim
        compressed = F.rms_norm(down[:, :latent], (latent,), self._kv_norm, EPSILON)
        key = rotated(down[:, None, latent:], inputs.cos, inputs.sin)[:, 0]
        latents = torch.cat((compressed, key), dim=-1)
        write_rows(self.caches[0], inputs.slots, latents)
        turned = rotated(query[:, :, nope:], inputs.cos, inputs.sin)
        return torch.cat((query[:, :, :nope], turned), dim=-1), latents

    def _prefill(self, query: torch.Tensor, latents: torch.Tensor, chunk: Chunk, step: Step) -> torch.Tensor:
        rows = slice(chunk.start, chunk.start + chunk.new)
        seen = latents[rows]
        if chunk.table is not None:
            seen = step.timer.run("mla_prefill", pages, self.caches[0], chunk.table)[0, : chunk.total]
        latent = self._mixer.kv_lora_rank
        kv = step.timer.run("gemm", self._kv_b, seen[:, :latent]).view(chunk.total, self._heads, -1)
        found = step.timer.run("mla_prefill", expanded, query[rows], kv, seen[:, latent:])
        return found.reshape(chunk.new, -1)
