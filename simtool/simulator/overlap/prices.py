"""LayerPrices: the kernels of one layer of a stage for any share of a step's batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from simtool.models.layer_chain import LayerKind, Link, layer_chain, one_layer
from simtool.models.lowering_attention import decode_operators, prefill_operators
from simtool.models.lowering_shard import Shard
from simtool.models.operators import Operator
from simtool.simulator.batch_text import StepText
from simtool.simulator.overlap.kernel import Kernel, make_kernel
from simtool.simulator.step_costs import StageHardware


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPrices:
    """Prices of a layer of `kind` under `batch`, whose `tokens` are what the step computes (padded)."""

    shard: Shard
    hardware: StageHardware
    kind: LayerKind
    batch: StepText
    tokens: float
    known: dict[float, tuple[Kernel, ...]] = field(default_factory=dict)

    def __call__(self, share: float) -> tuple[Kernel, ...]:
        """Kernels of `share` of the batch, in order; each share is priced once."""
        if share not in self.known:
            chain = layer_chain(self.shard, self.kind, np.array([share * self.tokens]))
            attention = [make_kernel(operator, self.hardware) for operator in self._attention(share)]
            self.known[share] = (*self._linked(chain.before), *attention, *self._linked(chain.after))
        return self.known[share]

    def _linked(self, links: Sequence[Link]) -> list[Kernel]:
        kernels = [make_kernel(link.operator, self.hardware, name=link.name, part=link.part) for link in links]
        return [
            replace(kernel, branch=link.branch, joins=link.joins) for kernel, link in zip(kernels, links, strict=True)
        ]

    def _attention(self, share: float) -> list[Operator]:
        """A share of the batch is that share of its requests, decodes and chunks alike."""
        one, batch = one_layer(self.shard, self.kind), self.batch
        operators: list[Operator] = []
        for chunk in batch.chunks:
            sizes = (share * chunk.requests, chunk.new_tokens, chunk.context_tokens)
            operators += prefill_operators(one, *(np.array([float(size)]) for size in sizes))
        if batch.decodes:
            mean = np.array([batch.decode_kv_tokens / batch.decodes])
            beside = np.array([float(len(batch.chunks))])
            operators += decode_operators(one, np.array([share * batch.decodes]), mean, beside_prefill=beside)
        return operators
