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
from simtool.models.operators import Operator
from simtool.simulator.step_costs import StageHardware
from simtool.simulator.tasks.task import Resource

# Below this share of its roofline a kernel waits rather than works.
FULL_RATE = 0.5
# Multiprocessors that fill the memory, as a share: NanoFlow (arXiv 2408.12757, figure 5) measures decode attention at
# 0.8 of its speed on 0.4 of the device.
MEMORY_SHARE = 0.5
_SUMS = ("all_reduce", "reduce_scatter")  # what they read of the memory is for sums; it is as much as they write
_TILE = 128  # rows and columns of an output tile of a large GEMM (cuBLAS, CUTLASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """seconds alone, of which latency_s shares with nobody; work: resource → units. tiles: see Task.

    wave_fill: share of the device that its waves fill on average; its work on "sm" is that much less than its time.
    sum_share: share of its memory traffic that only adding up needs.
    """

    name: str
    family: str
    seconds: float
    latency_s: float
    work: dict[str, float]
    tiles: int = 0
    wave_fill: float = 1.0
    sum_share: float = 0.0
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


def make_kernels(operator: Operator, hardware: StageHardware, *, name: str = "", part: float = 1.0) -> list[Kernel]:
    """The kernel of `part` of an operator, for each step of its column."""
    cost, device = hardware.cost_model.price(operator), hardware.device
    collective = operator.family == "collective"
    seconds = part * cost.seconds
    memory = np.minimum(part * operator.hbm_bytes / device.hbm_bytes_per_s, seconds)
    compute = np.minimum(part * operator.flops / device.peak_flops(operator.dtype), seconds)
    sent = np.minimum(part * cost.roofline_s, seconds) if collective else np.zeros_like(seconds)
    work = _Work(name=name or operator.name, operator=operator, device=device)
    columns = (seconds, np.zeros_like(seconds) if collective else compute, memory, sent)
    return [work.kernel(at, *(float(column[at]) for column in columns)) for at in range(len(seconds))]


def make_kernel(operator: Operator, hardware: StageHardware, *, name: str = "", part: float = 1.0) -> Kernel:
    """The kernel of `part` of an operator, whose column has one step."""
    return make_kernels(operator, hardware, name=name, part=part)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One operator on one device, from its roofline times to work on resources."""

    name: str
    operator: Operator
    device: Device

    def kernel(self, at: int, seconds: float, compute: float, memory: float, sent: float) -> Kernel:
        """The kernel of step `at`, alone `seconds`; compute, memory and sent: seconds of each at full rate."""
        operator, device, collective = self.operator, self.device, self.operator.family == "collective"
        busy = min(seconds, (sent if collective else max(compute, memory)) / FULL_RATE)
        if collective:
            sent = busy
        elif compute >= memory:
            compute = busy
        else:
            memory = busy
        tiles, wave_fill = _waves(operator, at, device) if compute >= memory and busy > 0 else (0, 1.0)
        crowd = 0.0 if collective else max(compute, MEMORY_SHARE * memory)
        link = "nic" if collective and float(operator.dims["nodes"][at]) > 1 else "nvlink"
        work = {"sm": wave_fill * crowd * device.sm_count, "hbm": memory * device.hbm_bytes_per_s, link: sent}
        return Kernel(
            name=self.name,
            family=operator.family,
            seconds=seconds,
            latency_s=seconds - busy,
            work={resource: units for resource, units in work.items() if units > 0},
            tiles=tiles,
            wave_fill=wave_fill,
            sum_share=0.5 if operator.collective in _SUMS else 0.0,
        )


def _waves(operator: Operator, at: int, device: Device) -> tuple[int, float]:
    """(output tiles, share of the device that its waves fill) of a GEMM; (0, 1) for what has no tiles."""
    if operator.family != "gemm":
        return 0, 1.0
    tiles = math.ceil(float(operator.dims["m"][at]) / _TILE) * math.ceil(float(operator.dims["n"][at]) / _TILE)
    waves = tiles / device.sm_count
    return tiles, waves / math.ceil(waves)
