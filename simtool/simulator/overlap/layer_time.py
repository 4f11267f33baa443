"""The time of one layer among many under an Overlap: few layers are simulated, the rest repeats.

The steady state's period is what one more layer adds; what the first layers take beyond it is paid once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from simtool.models.layer_chain import LayerKind
from simtool.plan import Overlap
from simtool.simulator.overlap.kernel import device_resources
from simtool.simulator.overlap.layers import Price, layer_graph
from simtool.simulator.step_costs import StageHardware
from simtool.simulator.tasks.bounds import graph_bounds
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.timeline import Timeline

_LAYERS = 2  # simulated once and twice


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """Seconds of one layer among many. serial_s: its whole kernels one by one. period_s: what one more layer adds.

    fill_s: what the first layers take beyond their periods. exposed_s: collectives that nothing runs beside, a layer.
    lower_s: no schedule of the same tasks is faster, a layer; pieces_s: the same tasks one by one. timeline: the layers
    that were simulated.
    """

    kind: LayerKind
    serial_s: float
    period_s: float
    fill_s: float
    exposed_s: float
    lower_s: float
    pieces_s: float
    timeline: Timeline


def layer_time(price: Price, overlap: Overlap, hardware: StageHardware, kind: LayerKind) -> LayerTime:
    """The steady state of equal layers."""
    resources = device_resources(hardware.device)
    graphs = [layer_graph(price, overlap, layers, resources) for layers in (_LAYERS, 2 * _LAYERS)]
    return steady_layer(price, kind, graphs[0], graphs[1], _LAYERS)


def steady_layer(price: Price, kind: LayerKind, few: TaskGraph, many: TaskGraph, layers: int) -> LayerTime:
    """The steady state, from the graphs of `layers` layers and of twice as many."""
    once, twice = simulate_tasks(few), simulate_tasks(many, record=True)
    period_s = (twice.makespan_s - once.makespan_s) / layers
    exposed_s = (twice.exposed_s("collective") - once.exposed_s("collective")) / layers
    first, both = (graph_bounds(graph) for graph in (few, many))
    return LayerTime(
        kind=kind,
        serial_s=math.fsum(kernel.seconds for kernel in price(1.0)),
        period_s=period_s,
        fill_s=once.makespan_s - layers * period_s,
        exposed_s=exposed_s if exposed_s > 1e-9 * period_s else 0.0,  # the rest is rounding
        lower_s=min((both.lower_s - first.lower_s) / layers, period_s),
        pieces_s=(both.serial_s - first.serial_s) / layers,
        timeline=twice,
    )
