"""The time of one layer among many under an Overlap: few layers are simulated, the rest repeats.

The steady state's period is what one more layer adds; what the first layers take beyond it is paid once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from simtool.models.layer_chain import LayerKind
from simtool.plan import Overlap
from simtool.simulator.overlap.kernel import device_resources
from simtool.simulator.overlap.kv_transfer import KV_TRANSFER, without_transfers
from simtool.simulator.overlap.layers import Price, layer_graph
from simtool.simulator.step_costs import StageHardware
from simtool.simulator.tasks.bounds import graph_bounds
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.timeline import Timeline

_LAYERS = 2  # simulated once and twice


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """Seconds of one layer among many. serial_s: its whole kernels one by one, and nothing sent to another pool.

    period_s: what one more layer adds. fill_s: what is paid once beyond the periods. exposed_s: collectives that no
    kernel runs beside, a layer. lower_s: no schedule of the same tasks is faster, a layer; pieces_s: the same tasks one
    by one. kv_bytes: what a layer sends to the decode pool; kv_exposed_s: sending that nothing runs beside, of all
    layers of the kind. timeline: the layers that were simulated.
    """

    kind: LayerKind
    serial_s: float
    period_s: float
    fill_s: float
    exposed_s: float
    lower_s: float
    pieces_s: float
    kv_bytes: float
    kv_exposed_s: float
    timeline: Timeline

    @property
    def seconds(self) -> float:
        """Of all layers of the kind; filling the pipeline is paid by the first ones."""
        return self.kind.count * self.period_s + self.fill_s


def layer_time(price: Price, overlap: Overlap, hardware: StageHardware, kind: LayerKind) -> LayerTime:
    """The steady state of equal layers."""
    resources = device_resources(hardware.device)
    graphs = [layer_graph(price, overlap, layers, resources) for layers in (_LAYERS, 2 * _LAYERS)]
    return steady_layer(price, kind, graphs[0], graphs[1], _LAYERS)


def steady_layer(price: Price, kind: LayerKind, few: TaskGraph, many: TaskGraph, layers: int) -> LayerTime:
    """The steady state, from the graphs of `layers` layers and of twice as many."""
    kernels = price(1.0)
    once, twice = simulate_tasks(few), simulate_tasks(many, record=True)
    period_s = (twice.makespan_s - once.makespan_s) / layers
    sending = [timeline.exposed_s(KV_TRANSFER) for timeline in (once, twice)]
    both_s = [timeline.exposed_s("collective", KV_TRANSFER) for timeline in (once, twice)]
    kv_s = (sending[1] - sending[0]) / layers
    exposed_s = (both_s[1] - both_s[0]) / layers - kv_s
    first, both = (graph_bounds(graph) for graph in (few, many))
    return LayerTime(
        kind=kind,
        serial_s=math.fsum(kernel.seconds for kernel in without_transfers(kernels)),
        period_s=period_s,
        fill_s=once.makespan_s - layers * period_s,
        exposed_s=exposed_s if exposed_s > 1e-9 * period_s else 0.0,  # the rest is rounding
        lower_s=min((both.lower_s - first.lower_s) / layers, period_s),
        pieces_s=(both.serial_s - first.serial_s) / layers,
        kv_bytes=math.fsum(kernel.work["hbm"] for kernel in kernels if kernel.family == KV_TRANSFER),
        kv_exposed_s=max(0.0, sending[0] + (kind.count - layers) * kv_s),
        timeline=twice,
    )
