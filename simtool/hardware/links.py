"""Link: what bytes travel on between devices, one direction (`data/links.toml`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from simtool.errors import InputError
from simtool.hardware.device import Device, nearest_names, read_catalogue
from simtool.units import GB, US


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """bytes_per_s: payload bandwidth of one direction a device; latency_s: one message between neighbours.

    reduces: the link's switches can add up what they carry (NVLink SHARP).
    """

    name: str
    kind: Literal["nvlink", "pcie", "network", "loopback"]
    bytes_per_s: float
    latency_s: float
    reduces: bool
    source: str


def link_names() -> tuple[str, ...]:
    """All catalogue names, sorted."""
    return tuple(sorted(read_catalogue("links.toml")))


def load_link(name: str) -> Link:
    """The link called `name`, in any case. InputError with the nearest names if unknown."""
    from simtool.hardware.device_file import LinkEntry, validated

    catalogue = read_catalogue("links.toml")
    key = name.strip().lower().replace("_", "-")
    if key not in catalogue:
        raise InputError(name, "is not in the link catalogue", nearest_names(key, catalogue))
    entry = validated(LinkEntry, catalogue[key], f"links.toml[{key}]")
    return Link(
        name=key,
        kind=entry.kind,
        bytes_per_s=entry.gb_per_s * GB,
        latency_s=entry.latency_us * US,
        reduces=entry.reduces,
        source=entry.source,
    )


def scale_up_link(device: Device) -> Link:
    """The link between the devices of one node, with this device's own number of links."""
    link = load_link(device.scale_up)
    if link.kind in ("pcie", "loopback"):
        return link
    return replace(link, bytes_per_s=device.scale_up_bytes_per_s)


def scale_out_link(device: Device) -> Link:
    """The default link between nodes, a device."""
    return load_link(device.inter_node)
