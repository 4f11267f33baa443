"""Kernel: a priced operator as work on a device's resources, so that what runs beside it competes for them.

A kernel's time alone is the cost model's. Which resources it needs for how long follows from its roofline: the largest
of compute, memory and link time fills that resource for as long as the kernel takes; the others run at full rate.
A kernel that reaches less than FULL_RATE of its roofline fills nothing for the rest of its time: launch, latency, tail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simtool.hardware.device import Device
from simtool.models.operators import Array, Operator
from simtool.simulator.step_costs import StageHardware
from simtool.simulator.tasks.task import Resource

# Below this share of its roofline a kernel waits rather than works.
FULL_RATE = 0.5
# Multiprocessors that fill the memory, as a share: NanoFlow (arXiv 2408.12757, figure 5) measures decode attention at
# 0.8 of its speed on 0.4 of the device.
MEMORY_SHARE = 0.5
_TILE = 128  # rows and columns of an output tile of a large GEMM (cuBLAS, CUTLASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """seconds alone, of which latency_s shares with nobody; work: resource → units. tiles: see Task.

    wave_fill: share of the device that its waves fill on average; its work on "sm" is that much less than its time.
    """

    name: str
    family: str
    seconds: float
    latency_s: float
    work: dict[str, float]
    tiles: int = 0
    wave_fill: float = 1.0
    branch: bool = False
    joins: bool = False


def device_resources(device: Device) -> tuple[Resource, ...]:
    """Multiprocessors (count), memory (bytes/s), links inside and between nodes (seconds of the link a second)."""
    return (
        Resource(name="sm", rate=float(device.sm_count)),
        Resource(name="hbm", rate=device.hbm_bytes_per_s),
        Resource(name="nvlink", rate=1.0),
        Resource(name="nic", rate=1.0),
    )


def make_kernels(
    operator: Operator,
    hardware: StageHardware,
    *,
    name: str = "",
    part: float = 1.0,
) -> list[Kernel]:
    """The kernel of `part` of an operator for every step of its column."""
    cost = hardware.cost_model.price(operator)
    seconds = part * np.broadcast_to(cost.seconds, operator.flops.shape)
    floors = _floors(operator, cost.roofline_s, hardware.device)
    link = "nic" if operator.family == "collective" and float(operator.dims["nodes"].max()) > 1 else "nvlink"
    return [
        _kernel(operator, index, name or operator.name, float(seconds[index]), part * floors[:, index], hardware, link)
        for index in range(len(seconds))
    ]


def _floors(operator: Operator, roofline_s: Array, device: Device) -> Array:
    """[3, b] seconds of compute, memory and link at full rate."""
    moved = operator.hbm_bytes / device.hbm_bytes_per_s
    if operator.family == "collective":
        return np.stack(np.broadcast_arrays(0.0 * moved, moved, roofline_s))
    return np.stack(np.broadcast_arrays(operator.flops / device.peak_flops(operator.dtype), moved, 0.0 * moved))


def _kernel(
    operator: Operator, index: int, name: str, seconds: float, floors: Array, hardware: StageHardware, link: str
) -> Kernel:
    device = hardware.device
    compute, memory, sent = (min(float(floor), seconds) for floor in floors)
    longest = sent if operator.family == "collective" else max(compute, memory)
    busy = min(seconds, longest / FULL_RATE)
    if operator.family == "collective":
        sent = busy
    elif compute >= memory:
        compute = busy
    else:
        memory = busy
    crowd = max(compute, MEMORY_SHARE * memory) if operator.family != "collective" else 0.0
    work = {"sm": crowd * device.sm_count, "hbm": memory * device.hbm_bytes_per_s, link: sent}
    tiles, wave_fill = 0, 1.0
    if operator.family == "gemm" and compute >= memory and busy > 0:
        tiles = math.ceil(float(operator.dims["m"][index]) / _TILE) * math.ceil(
            float(operator.dims["n"][index]) / _TILE
        )
        waves = tiles / device.sm_count
        wave_fill = waves / math.ceil(waves)
        work["sm"] *= wave_fill  # so that it takes `seconds` on the whole device
    return Kernel(
        name=name,
        family=operator.family,
        seconds=seconds,
        latency_s=seconds - busy,
        work={resource: units for resource, units in work.items() if units > 0},
        tiles=tiles,
        wave_fill=wave_fill,
    )
