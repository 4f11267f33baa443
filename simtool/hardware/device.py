"""Device: one accelerator, in SI units: of the catalogue (`data/devices/*.toml`, `data/aliases.toml`), or as a user's
profile describes it (`measured_device`)."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from simtool.errors import InputError
from simtool.units import GB, GIB, MIB, TERA

# What a kernel computes in when the device has no native rate for the dtype: the weights are widened on the fly.
_WIDER = {
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "fp4": "bf16",
    "int4": "bf16",
    "fp8": "bf16",
    "int8": "bf16",
    "bf16": "fp16",
    "fp16": "fp32",
    "tf32": "fp32",
}
_OWN_HINT = {
    False: "; a device of your own needs the profile that measured it (simtool calibrate, --profile)",
    True: "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator. Rates are dense peaks from the datasheet, not what kernels reach.

    flops: FLOP/s by dtype (fp32, tf32, fp16, bf16, fp8, int8, fp4; a dtype the device has no unit for is absent).
    hbm_bytes: nominal capacity; usable_bytes: what the driver reports as total to a process.
    scale_up: name of the link inside a node; scale_up_bytes_per_s: one direction, all its links together.
    per_node: devices in one fast-link domain of the usual server; inter_node: default link between them.
    c2c: name of a coherent link to the host CPU, or "". price_per_hour: USD, None where no public price is known.
    sources: catalogue group (compute, memory, chip, power, links, price) -> where its numbers come from.
    kind: "cpu" is one process; all processes of a node share its memory. catalogued: False for a device that only a
    user's profile knows: its rates are what was reached, inter_node is "", and power, cache and clock may be NaN.
    """

    name: str
    aliases: tuple[str, ...]
    vendor: str
    architecture: str
    compute_capability: str
    flops: Mapping[str, float]
    hbm_bytes: float
    usable_bytes: float
    hbm_bytes_per_s: float
    l2_bytes: float
    sm_count: int
    boost_hz: float
    copy_engines: int
    tdp_w: float
    idle_w: float
    scale_up: str
    scale_up_bytes_per_s: float
    pcie: str
    per_node: int
    inter_node: str
    c2c: str
    price_per_hour: float | None
    price_date: str
    sources: Mapping[str, str]
    kind: Literal["gpu", "cpu"] = "gpu"
    catalogued: bool = True

    def compute_dtype(self, dtype: str) -> str:
        """The dtype that kernels compute in for operands of `dtype`: itself if native, else the next wider one."""
        current = dtype.lower()
        while current not in self.flops:
            if current not in _WIDER:
                known = ", ".join(sorted({*self.flops, *_WIDER}))
                raise InputError(dtype, "is no known compute dtype", f"one of {known}")
            current = _WIDER[current]
        return current

    def peak_flops(self, dtype: str) -> float:
        """Dense peak FLOP/s for operands of `dtype`, after widening where the device has no native rate."""
        return self.flops[self.compute_dtype(dtype)]


def read_catalogue(filename: str) -> dict[str, Any]:
    """The parsed TOML file `filename` of simtool/hardware/data."""
    text = files("simtool.hardware").joinpath("data", *filename.split("/")).read_text(encoding="utf-8")
    return tomllib.loads(text)


def nearest_names(name: str, known: Iterable[str]) -> str:
    """A hint with the catalogue names most like `name`."""
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=4, cutoff=0.5)
    if close:
        return "did you mean " + ", ".join(close) + "?"
    return "known: " + ", ".join(names)


def device_names() -> tuple[str, ...]:
    """All catalogue names, sorted."""
    folder = files("simtool.hardware").joinpath("data", "devices")
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def device_aliases() -> dict[str, str]:
    """Alias -> catalogue name."""
    return read_catalogue("aliases.toml")


def load_device(name: str, own: Iterable[Device] = ()) -> Device:
    """The device called `name` or having it as alias, in any case. InputError with the nearest names if unknown.

    own: devices that the user's profiles describe, which the catalogue lacks.
    """
    from simtool.hardware.device_file import DeviceEntry, validated

    aliases, names = device_aliases(), device_names()
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    key = aliases.get(key, key)
    if key not in names:
        described = {alias: device for device in own for alias in (*device.aliases, device.name)}
        if key in described:
            return described[key]
        hint = nearest_names(key, [*names, *aliases, *described])
        raise InputError(name, "is not in the device catalogue", hint + _OWN_HINT[bool(described)])
    entry = validated(DeviceEntry, read_catalogue(f"devices/{key}.toml"), f"devices/{key}.toml")
    return _device(key, tuple(alias for alias, target in aliases.items() if target == key), entry)


def _peaks(compute: Any) -> dict[str, float]:
    rates = compute.model_dump(exclude={"source"}, exclude_none=True)
    return {key.removesuffix("_tflops"): rate * TERA for key, rate in rates.items()}


def _sources(entry: Any) -> dict[str, str]:
    groups = {name: getattr(entry, name) for name in ("about", "compute", "memory", "chip", "power", "links", "price")}
    return {name: group.source for name, group in groups.items() if group is not None}


def _device(name: str, aliases: tuple[str, ...], entry: Any) -> Device:
    memory, chip, power, links, price = entry.memory, entry.chip, entry.power, entry.links, entry.price
    return Device(
        name=name,
        aliases=aliases,
        vendor=entry.about.vendor,
        architecture=entry.about.architecture,
        compute_capability=entry.about.compute_capability,
        flops=_peaks(entry.compute),
        hbm_bytes=memory.hbm_gib * GIB,
        usable_bytes=memory.usable_gib * GIB,
        hbm_bytes_per_s=memory.hbm_gb_per_s * GB,
        l2_bytes=memory.l2_mib * MIB,
        sm_count=chip.sm_count,
        boost_hz=chip.boost_mhz * 1e6,
        copy_engines=chip.copy_engines,
        tdp_w=power.tdp_w,
        idle_w=power.idle_w,
        scale_up=links.scale_up,
        scale_up_bytes_per_s=links.scale_up_gb_per_s * GB,
        pcie=links.pcie,
        per_node=links.per_node,
        inter_node=links.inter_node,
        c2c=links.c2c,
        price_per_hour=None if price is None else price.usd_per_hour,
        price_date="" if price is None else price.date,
        sources=_sources(entry),
    )


def describe_device(device: Device) -> dict[str, Any]:
    """Everything known about `device`, as plain JSON values with the unit in each key."""
    from simtool.hardware.energy import describe_energy

    return {
        "name": device.name,
        "aliases": list(device.aliases),
        "vendor": device.vendor,
        "architecture": device.architecture,
        "compute_capability": device.compute_capability,
        "dense_tflops": {dtype: rate / TERA for dtype, rate in device.flops.items()},
        "hbm_gib": device.hbm_bytes / GIB,
        "usable_gib": device.usable_bytes / GIB,
        "hbm_gb_per_s": device.hbm_bytes_per_s / GB,
        "l2_mib": device.l2_bytes / MIB,
        "sm_count": device.sm_count,
        "boost_mhz": device.boost_hz / 1e6,
        "copy_engines": device.copy_engines,
        "tdp_w": device.tdp_w,
        "idle_w": device.idle_w,
        "scale_up": device.scale_up,
        "scale_up_gb_per_s": device.scale_up_bytes_per_s / GB,
        "pcie": device.pcie,
        "c2c": device.c2c,
        "devices_per_node": device.per_node,
        "inter_node": device.inter_node,
        "energy": describe_energy(device),
        "price_usd_per_hour": device.price_per_hour,
        "price_date": device.price_date,
        "sources": dict(device.sources),
    }
