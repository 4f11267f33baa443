"""MeasuredDevice: what a profile says of the device that it measured, where the catalogue does not know it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from simtool.hardware.device import Device

# What joins such devices, until the profile's own collectives say more: the narrowest bus that a GPU sits on, and the
# loopback between processes. No network is known: a cluster file has to say which.
_LINKS = {"gpu": "pcie3", "cpu": "loopback"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredDevice:
    """name: as the profile has it, made of what the device calls itself (label).

    memory_bytes: a GPU's own, all that a machine's CPU processes share. count: of such devices in the machine: GPUs, or
    processes of units threads. units: a GPU's multiprocessors, a CPU process's threads. cache_bytes, clock_hz: NaN
    where nobody said. flops, bytes_per_s: the highest rates that the measurements reached, by dtype.
    """

    name: str
    kind: Literal["cpu", "gpu"]
    label: str
    memory_bytes: float
    count: int
    units: int
    flops: Mapping[str, float]
    bytes_per_s: float
    cache_bytes: float = math.nan
    clock_hz: float = math.nan
    compute_capability: str = ""


def device_of(measured: MeasuredDevice, name: str) -> Device:
    """The device as the cost model takes it, called `name`. NaN for what was not measured; no price is known.

    A dtype narrower than any measured one is widened as elsewhere; where only narrow ones were measured, fp32 has the
    lowest of their rates.
    """
    link, reached = _LINKS[measured.kind], "the highest rates that this machine's measurements reached"
    return Device(
        name=name,
        aliases=(slug(measured.name),) if name != slug(measured.name) else (),
        vendor=measured.label,
        architecture=measured.name,
        compute_capability=measured.compute_capability or measured.name,
        flops={"fp32": min(measured.flops.values()), **measured.flops},
        hbm_bytes=measured.memory_bytes,
        usable_bytes=measured.memory_bytes,
        hbm_bytes_per_s=measured.bytes_per_s,
        l2_bytes=measured.cache_bytes,
        sm_count=measured.units,
        boost_hz=measured.clock_hz,
        copy_engines=1,
        tdp_w=math.nan,
        idle_w=math.nan,
        scale_up=link,
        scale_up_bytes_per_s=math.nan,
        pcie=link,
        per_node=measured.count,
        inter_node="",
        c2c="",
        price_per_hour=None,
        price_date="",
        sources={"compute": reached, "memory": f"{reached}; size: the driver's or the system's", "power": "unknown"},
        kind=measured.kind,
        catalogued=False,
    )


def slug(name: str) -> str:
    """`name` as one can type it in --devices: small letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
