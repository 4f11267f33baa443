"""The layers of a step under an Overlap: few of them are simulated, the rest repeats.

The steady state's period is what one more layer adds; what the first layers take beyond it is paid once by each kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.models.layer_chain import LayerKind, layer_kinds
from simtool.models.lowering_shard import MoeDispatch
from simtool.plan import Pool
from simtool.simulator.batch_text import StepText
from simtool.simulator.compile import stage_hardware
from simtool.simulator.explain import check_batch
from simtool.simulator.grids import capture_sizes, padded_tokens
from simtool.simulator.overlap.kernel import device_resources
from simtool.simulator.overlap.layers import Price, layer_graph
from simtool.simulator.overlap.policy import Overlap
from simtool.simulator.overlap.prices import LayerPrices
from simtool.simulator.step_costs import StageHardware, stage_shards
from simtool.simulator.tasks.bounds import graph_bounds
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.timeline import Timeline

_LAYERS = 2  # simulated once and twice


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """Seconds of one layer among many. serial_s: its whole kernels one by one. period_s: what one more layer adds.

    fill_s: what the first layers take beyond their periods. exposed_s: collectives that nothing runs beside, a layer.
    lower_s: no schedule of the same tasks is faster, a layer. timeline: the layers that were simulated.
    """

    kind: LayerKind
    serial_s: float
    period_s: float
    fill_s: float
    exposed_s: float
    lower_s: float
    timeline: Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlappedStep:
    """All layers of all stages of a step; embedding, head and host are left out, nothing of them overlaps."""

    overlap: Overlap
    layers: tuple[LayerTime, ...]

    @property
    def serial_s(self) -> float:
        """One kernel after the other."""
        return math.fsum(time.kind.count * time.serial_s for time in self.layers)

    @property
    def seconds(self) -> float:
        """With the overlap; filling the pipeline is paid by the first layers of each kind."""
        return math.fsum(time.kind.count * time.period_s + time.fill_s for time in self.layers)

    @property
    def exposed_s(self) -> float:
        """Communication that nothing hides."""
        return math.fsum(time.kind.count * time.exposed_s for time in self.layers)

    @property
    def lower_s(self) -> float:
        """No schedule of these tasks takes less."""
        return math.fsum(time.kind.count * time.lower_s for time in self.layers)


def overlapped_step(
    arch: ModelArchitecture,
    pool: Pool,
    hardware: Mapping[str, StageHardware],
    batch: StepText,
    overlap: Overlap,
    *,
    moe_dispatch: MoeDispatch = "allgather_reducescatter",
) -> OverlappedStep:
    """The layers of one step of a replica of `pool`; arguments as `explain_step` takes them.

    Raises InputError for a batch that the scheduler would not form, and for a CPU, which runs one kernel at a time.
    """
    check_batch(arch, pool, batch)
    padded = float(padded_tokens(batch.tokens, capture_sizes(pool.scheduler))[-1])
    used = Overlap() if batch.tokens < overlap.min_tokens else overlap
    stages = stage_hardware(pool, hardware)
    for found in stages:
        if found.device.kind == "cpu":
            raise InputError(found.device.name, "runs one kernel at a time: nothing of a step overlaps", "ask for GPUs")
    times: list[LayerTime] = []
    shards = stage_shards(arch, pool.parallel, stages, kv_dtype=pool.kv.dtype, moe_dispatch=moe_dispatch)
    for shard, found in zip(shards, stages, strict=True):
        for kind in layer_kinds(shard):
            price = LayerPrices(shard=shard, hardware=found, kind=kind, batch=batch, tokens=padded)
            times.append(layer_time(price, used, found, kind))
    return OverlappedStep(overlap=used, layers=tuple(times))


def layer_time(price: Price, overlap: Overlap, hardware: StageHardware, kind: LayerKind) -> LayerTime:
    """The steady state of equal layers."""
    resources = device_resources(hardware.device)
    serial_s = math.fsum(kernel.seconds for kernel in price(1.0))
    graphs = [layer_graph(price, overlap, layers, resources) for layers in (_LAYERS, 2 * _LAYERS)]
    once, twice = simulate_tasks(graphs[0]), simulate_tasks(graphs[1], record=True)
    period_s = (twice.makespan_s - once.makespan_s) / _LAYERS
    exposed_s = (twice.exposed_s("collective") - once.exposed_s("collective")) / _LAYERS
    lower = [graph_bounds(graph).lower_s for graph in graphs]
    return LayerTime(
        kind=kind,
        serial_s=serial_s,
        period_s=period_s,
        fill_s=once.makespan_s - _LAYERS * period_s,
        exposed_s=exposed_s if exposed_s > 1e-9 * period_s else 0.0,  # the rest is rounding
        lower_s=min((lower[1] - lower[0]) / _LAYERS, period_s),
        timeline=twice,
    )
