"""What an Overlap saves a step, over the tokens of the step and the share of attention in it.

Layers repeat, so a step of many layers is simulated as few: the steady state's period is the difference that one more
layer makes, and the first layers say what filling the pipeline costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from simtool.models.layer_chain import LayerKind, Link, layer_chain, layer_kinds
from simtool.models.lowering_shard import Shard
from simtool.models.operators import Array
from simtool.plan import Overlap
from simtool.simulator.overlap.kernel import Kernel, attention_kernel, device_resources, make_kernels, total_s
from simtool.simulator.overlap.layers import Price, layer_graph
from simtool.simulator.step_costs import StageHardware
from simtool.simulator.tasks.simulate import simulate_tasks

ATTENTION_KNOTS = 9  # shares of attention in a step, 0 … 1, evenly: the last stands for almost 1
_LAYERS = 2  # simulated once and twice


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """period_s: what one more layer adds; fill_s: what the first layers take beyond their periods."""

    period_s: float
    fill_s: float


def layer_time(price: Price, overlap: Overlap, hardware: StageHardware) -> LayerTime:
    """The steady state of equal layers under an Overlap, by simulation."""
    resources = device_resources(hardware.device)
    once, twice = (
        simulate_tasks(layer_graph(price, overlap, layers, resources)).makespan_s for layers in (_LAYERS, 2 * _LAYERS)
    )
    period = (twice - once) / _LAYERS
    return LayerTime(period_s=period, fill_s=once - _LAYERS * period)


@dataclass(frozen=True, slots=True)
class ChainPrices:
    """Kernels of one layer of a kind for a column of token counts, by share of the batch; made when first asked for."""

    shard: Shard
    hardware: StageHardware
    kind: LayerKind
    tokens: Array
    known: dict[float, tuple[list[list[Kernel]], list[list[Kernel]]]] = field(default_factory=dict)

    def price(self, index: int, attention: Sequence[Kernel]) -> Price:
        """`Price` of step `index` of the column, with kernels of attention for the whole batch put in."""

        def kernels(share: float) -> list[Kernel]:
            if share not in self.known:
                chain = layer_chain(self.shard, self.kind, share * self.tokens)
                self.known[share] = (self._column(chain.before), self._column(chain.after))
            before, after = self.known[share]
            own = [_part(kernel, share) for kernel in attention]
            return [*(column[index] for column in before), *own, *(column[index] for column in after)]

        return kernels

    def _column(self, links: Sequence[Link]) -> list[list[Kernel]]:
        return [
            make_kernels(
                link.operator, self.hardware, name=link.name, part=link.part, branch=link.branch, joins=link.joins
            )
            for link in links
        ]


def stage_saving(shard: Shard, hardware: StageHardware, overlap: Overlap, tokens: Array) -> Array:
    """[T, 2, ATTENTION_KNOTS] seconds that a step of a stage is faster; below 0 where overlapping loses.

    tokens [T] of a rank. Second axis: attention of decodes, of prefill chunks. Third: attention's share of the time of a
    step without overlap.
    """
    kinds = layer_kinds(shard)
    chains = [ChainPrices(shard, hardware, kind, tokens) for kind in kinds]
    shares = np.minimum(np.linspace(0.0, 1.0, ATTENTION_KNOTS), 0.99)
    saved = np.zeros((len(tokens), 2, ATTENTION_KNOTS))
    for index in np.flatnonzero(tokens >= max(overlap.min_tokens, 1)):
        for which, decode in enumerate((True, False)):
            for knot, share in enumerate(shares):
                saved[index, which, knot] = _saved(chains, int(index), float(share), overlap, decode=decode)
    return saved


def _saved(chains: Sequence[ChainPrices], index: int, share: float, overlap: Overlap, *, decode: bool) -> float:
    """Seconds that one step of the column is faster; its attention is spread evenly over the layers that have any."""
    hardware = chains[0].hardware
    alone = [total_s(chain.price(index, ())(1.0)) for chain in chains]
    base = sum(chain.kind.count * seconds for chain, seconds in zip(chains, alone, strict=True))
    mixers = sum(chain.kind.count for chain in chains if chain.kind.mixer is not None)
    each = share / (1.0 - share) * base / max(mixers, 1)
    saved, fill = 0.0, 0.0
    for chain, seconds in zip(chains, alone, strict=True):
        mixes = chain.kind.mixer is not None and each > 0
        attention = [attention_kernel(each, hardware.device, decode=decode)] if mixes else []
        time = layer_time(chain.price(index, attention), overlap, hardware)
        saved += chain.kind.count * (seconds + (each if attention else 0.0) - time.period_s)
        fill = max(fill, time.fill_s)
    return saved - fill


def _part(kernel: Kernel, share: float) -> Kernel:
    """Attention of a part of the batch: every request brings its own cache, so it is just less work."""
    return Kernel(
        name=kernel.name,
        family=kernel.family,
        seconds=share * kernel.seconds,
        latency_s=share * kernel.latency_s,
        work={name: share * units for name, units in kernel.work.items()},
    )
