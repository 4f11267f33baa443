"""LayerPrices: the kernels of one layer of a stage for any share of a step's batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from simtool.models.layer_chain import LayerKind, Link, layer_chain, one_layer
from simtool.models.lowering_attention import decode_operators, prefill_operators
from simtool.models.lowering_kv import sent_kv_bytes
from simtool.models.lowering_shard import Shard
from simtool.models.operators import Array, Operator
from simtool.simulator.batch_text import StepText
from simtool.simulator.overlap.kernel import Kernel, make_kernels
from simtool.simulator.overlap.kv_transfer import kv_kernels
from simtool.simulator.step_costs import StageHardware

Chain = tuple[tuple[Kernel, ...], tuple[Kernel, ...]]  # kernels before attention, and after


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPrices:
    """Prices of a layer of `kind` under `batch`, whose `tokens` are what the step computes (padded).

    kv_nodes: see `Overlap.kv_nodes`.
    """

    shard: Shard
    hardware: StageHardware
    kind: LayerKind
    batch: StepText
    tokens: float
    kv_nodes: int = 0
    known: dict[float, tuple[Kernel, ...]] = field(default_factory=dict)

    def __call__(self, share: float) -> tuple[Kernel, ...]:
        """Kernels of `share` of the batch, in order, and last what it sends; each share is priced once."""
        if share not in self.known:
            chains = chain_kernels(self.shard, self.kind, self.hardware, np.array([share * self.tokens]))
            before, after = chains[0]
            self.known[share] = (*before, *self._attention(share), *after, *self._sent(share))
        return self.known[share]

    def _sent(self, share: float) -> tuple[Kernel, ...]:
        if not self.kv_nodes:
            return ()
        one, sent_bytes = one_layer(self.shard, self.kind), np.zeros(1)
        for chunk in self.batch.chunks:
            sent_bytes += sent_kv_bytes(one, np.array([share * chunk.requests]), np.array([float(chunk.new_tokens)]))
        return kv_kernels(one, self.hardware, sent_bytes, self.kv_nodes)[0]

    def _attention(self, share: float) -> list[Kernel]:
        """A share of the batch is that share of its requests, decodes and chunks alike."""
        one, batch = one_layer(self.shard, self.kind), self.batch
        kernels: list[Kernel] = []
        if self.kind.mixer is None:
            return kernels
        for chunk in batch.chunks:
            sizes = (share * chunk.requests, chunk.new_tokens, chunk.context_tokens)
            operators = prefill_operators(one, *(np.array([float(size)]) for size in sizes))
            kernels += attention_kernels(operators, self.hardware)[0]
        if batch.decodes:
            mean = np.array([batch.decode_kv_tokens / batch.decodes])
            beside = np.array([float(len(batch.chunks))])
            operators = decode_operators(one, np.array([share * batch.decodes]), mean, beside_prefill=beside)
            kernels += attention_kernels(operators, self.hardware)[0]
        return kernels


def attention_kernels(operators: Sequence[Operator], hardware: StageHardware) -> list[tuple[Kernel, ...]]:
    """The kernels of each step of the operators' columns."""
    return list(zip(*(make_kernels(operator, hardware) for operator in operators), strict=True))


def chain_kernels(shard: Shard, kind: LayerKind, hardware: StageHardware, tokens: Array) -> list[Chain]:
    """The kernels of a layer beside attention, for each of `tokens` [b] of a rank."""
    chain = layer_chain(shard, kind, tokens)
    before, after = _linked(chain.before, hardware, len(tokens)), _linked(chain.after, hardware, len(tokens))
    return list(zip(before, after, strict=True))


def _linked(links: Sequence[Link], hardware: StageHardware, steps: int) -> list[tuple[Kernel, ...]]:
    columns = [
        [
            replace(kernel, branch=link.branch, joins=link.joins)
            for kernel in make_kernels(link.operator, hardware, name=link.name, part=link.part)
        ]
        for link in links
    ]
    return [tuple(column[step] for column in columns) for step in range(steps)]
