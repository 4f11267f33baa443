"""GridPrices: the kernels of one layer over a grid of steps, each operator priced once for all token counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simtool.models.layer_chain import LayerKind, one_layer
from simtool.models.lowering_attention import decode_operators, prefill_operators
from simtool.models.lowering_kv import sent_kv_bytes
from simtool.models.lowering_shard import Shard
from simtool.simulator.overlap.kernel import Kernel
from simtool.simulator.overlap.kv_transfer import kv_kernels
from simtool.simulator.overlap.layers import Price
from simtool.simulator.overlap.prices import Chain, attention_kernels, chain_kernels
from simtool.simulator.step_costs import StageHardware

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """All tokens of a step as chunks of prompts: at most `longest` tokens each, after `context` cached ones."""

    longest: int
    context: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPrices:
    """A layer of `kind` in steps of `tokens` [T]; max_seqs: most requests that decode. The dicts hold what is priced.

    A step has min(tokens, max_seqs) decodes of `length` where that is above 0, and chunks of prompts that hold all its
    tokens where a Chunk is given: the share of its attention counts, not what exactly it is made of. kv_nodes: see
    `Overlap.kv_nodes`; the KV of all those tokens is sent.
    """

    shard: Shard
    hardware: StageHardware
    kind: LayerKind
    tokens: Array
    max_seqs: int
    kv_nodes: int = 0
    chains: dict[float, list[Chain]] = field(default_factory=dict)
    decodes: dict[tuple[float, int, bool], list[tuple[Kernel, ...]]] = field(default_factory=dict)
    prefills: dict[tuple[float, Chunks], list[tuple[Kernel, ...]]] = field(default_factory=dict)
    transfers: dict[tuple[float, Chunks], list[tuple[Kernel, ...]]] = field(default_factory=dict)

    def at(self, step: int, length: int, chunks: Chunks | None) -> Price:
        """What a share of the step tokens[step] costs, kernel by kernel, and last what it sends."""

        def price(share: float) -> tuple[Kernel, ...]:
            if share not in self.chains:
                self.chains[share] = chain_kernels(self.shard, self.kind, self.hardware, share * self.tokens)
            before, after = self.chains[share][step]
            sent = self._sent(share, chunks)[step] if chunks is not None and self.kv_nodes else ()
            return (*before, *self.attention(step, share, length, chunks), *after, *sent)

        return price

    def attention(self, step: int, share: float, length: int, chunks: Chunks | None) -> tuple[Kernel, ...]:
        """Attention kernels of a share of the step tokens[step]."""
        kernels: tuple[Kernel, ...] = ()
        if self.kind.mixer is None:
            return kernels
        if chunks is not None:
            kernels += self._prefill(share, chunks)[step]
        if length > 0:
            kernels += self._decode(share, length, chunks is not None)[step]
        return kernels

    def _prefill(self, share: float, chunks: Chunks) -> list[tuple[Kernel, ...]]:
        if (share, chunks) not in self.prefills:
            new = np.minimum(self.tokens, chunks.longest)
            context = np.full_like(self.tokens, chunks.context)
            operators = prefill_operators(one_layer(self.shard, self.kind), share * self.tokens / new, new, context)
            self.prefills[share, chunks] = attention_kernels(operators, self.hardware)
        return self.prefills[share, chunks]

    def _sent(self, share: float, chunks: Chunks) -> list[tuple[Kernel, ...]]:
        if (share, chunks) not in self.transfers:
            one, new = one_layer(self.shard, self.kind), np.minimum(self.tokens, chunks.longest)
            sent_bytes = sent_kv_bytes(one, share * self.tokens / new, new)
            self.transfers[share, chunks] = kv_kernels(one, self.hardware, sent_bytes, self.kv_nodes)
        return self.transfers[share, chunks]

    def _decode(self, share: float, length: int, beside: bool) -> list[tuple[Kernel, ...]]:
        if (share, length, beside) not in self.decodes:
            requests = share * np.minimum(self.tokens, self.max_seqs)
            lengths, flags = np.full_like(self.tokens, length), np.full_like(self.tokens, beside)
            one = one_layer(self.shard, self.kind)
            operators = decode_operators(one, requests, lengths, beside_prefill=flags)
            self.decodes[share, length, beside] = attention_kernels(operators, self.hardware)
        return self.decodes[share, length, beside]
