"""Cluster: groups of equal nodes, each with its devices and links."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simtool.errors import InputError
from simtool.hardware.device import Device, load_device
from simtool.hardware.links import Link, load_link, scale_out_link, scale_up_link
from simtool.units import GB, US

MAX_DEVICES = 1_000_000
_TERM = re.compile(r"(?:(?P<nodes>\d+)x)?(?P<count>\d+)x(?P<device>.+)", re.IGNORECASE)
_OWN_NODES = "for more of them, describe the nodes and their network in a cluster file (TOML)"
_EXAMPLE = 'write it as "8xh200", "2x8xh100" (nodes x devices) or "4xa100-80g+8xl4"'


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """`nodes` equal nodes of `devices_per_node` devices; intra joins devices of a node, inter joins nodes.

    inter is one NIC; nics: how many of them a node has (usually one a device).
    """

    device: Device
    nodes: int
    devices_per_node: int
    intra: Link
    inter: Link
    nics: int

    @property
    def devices(self) -> int:
        """Devices of the group."""
        return self.nodes * self.devices_per_node


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The hardware a plan may use. `text` is what the user wrote."""

    text: str
    groups: tuple[NodeGroup, ...]

    @property
    def devices(self) -> int:
        """Devices of all groups."""
        return sum(group.devices for group in self.groups)

    @property
    def devices_by_type(self) -> dict[str, int]:
        """Catalogue name -> devices, in the order written."""
        counts: dict[str, int] = {}
        for group in self.groups:
            counts[group.device.name] = counts.get(group.device.name, 0) + group.devices
        return counts

    def group_of(self, device: str = "") -> NodeGroup:
        """The largest-noded group of a device type (name or alias); "" means the first group."""
        if not device:
            return self.groups[0]
        key = device.strip().lower()
        found = [group for group in self.groups if key in (group.device.name, *group.device.aliases)]
        if not found:
            raise InputError(device, f"is not in the cluster {self.text}", "one of " + ", ".join(self.devices_by_type))
        return max(found, key=lambda group: group.devices_per_node)

    def span(self, ranks: int, device: str = "") -> tuple[int, int]:
        """(nodes, devices in a node) that `ranks` devices placed side by side occupy. InputError if they do not fit."""
        group = self.group_of(device)
        available = self.devices_by_type[group.device.name]
        if not 1 <= ranks <= available:
            raise InputError(
                ranks, f"ranks do not fit on {available} x {group.device.name}", f"between 1 and {available}"
            )
        return -(-ranks // group.devices_per_node), min(ranks, group.devices_per_node)


def parse_cluster(text: str, own: Sequence[Device] = ()) -> Cluster:
    """The cluster written as "8xh200", "2x8xh100" (nodes x devices each) or "4xa100-80g+8xl4", or a *.toml file's path.

    A count above the device's usual node size is cut into full nodes and a rest: "12xh100" is 8 + 4.
    own: devices beside the catalogue's, as the user's profiles describe them (`own_profiles.own_devices`).
    """
    if text.strip().lower().endswith(".toml"):
        return read_cluster(Path(text.strip()), own)
    groups = [group for term in text.split("+") for group in _parse_term(term.strip(), text, own)]
    return _checked(Cluster(text=text.strip(), groups=tuple(groups)))


def read_cluster(path: Path, own: Sequence[Device] = ()) -> Cluster:
    """The cluster of a TOML file: [[groups]] with device, nodes, devices_per_node and optional link overrides."""
    from simtool.hardware.device_file import ClusterEntry, validated

    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(path, f"cannot be read as a cluster file: {error}", "a TOML file with [[groups]]") from None
    entries = validated(ClusterEntry, table, str(path)).groups
    return _checked(Cluster(text=str(path), groups=tuple(_group_of_entry(entry, own) for entry in entries)))


def _checked(cluster: Cluster) -> Cluster:
    if cluster.devices > MAX_DEVICES:
        raise InputError(cluster.text, f"has more than {MAX_DEVICES} devices", _EXAMPLE)
    return cluster


def _parse_term(term: str, text: str, own: Sequence[Device]) -> Iterator[NodeGroup]:
    match = _TERM.fullmatch(term)
    if match is None:
        hint = re.fullmatch(r"(\d+)\s*\*?\s*([a-wyz].*)", term, re.IGNORECASE)
        raise InputError(text, "is not a cluster", f'did you mean "{hint[1]}x{hint[2]}"?' if hint else _EXAMPLE)
    device = load_device(match["device"], own)
    count = int(match["count"])
    nodes = int(match["nodes"]) if match["nodes"] else 0
    if count == 0 or (match["nodes"] and nodes == 0):
        raise InputError(text, "has no devices", "give at least one, e.g. " + f'"1x{device.name}"')
    if not device.inter_node and (nodes > 1 or count > device.per_node):
        raise InputError(text, f"is larger than the machine that was measured: {_machine(device)}", _OWN_NODES)
    if nodes:
        yield node_group(device, nodes=nodes, devices_per_node=count)
        return
    full, rest = divmod(count, device.per_node)
    if full:
        yield node_group(device, nodes=full, devices_per_node=device.per_node)
    if rest:
        yield node_group(device, nodes=1, devices_per_node=rest)


def node_group(device: Device, *, nodes: int, devices_per_node: int) -> NodeGroup:
    """Nodes with the device's default links. More devices than one fast-link domain holds go over the host's PCIe.

    CPU processes share their node's memory evenly, however many of them a plan then uses.
    """
    intra = scale_up_link(device)
    if device.kind == "cpu":
        device = replace(device, usable_bytes=device.hbm_bytes / devices_per_node)
    if devices_per_node > device.per_node and intra.kind == "nvlink":
        intra = load_link(device.pcie)
    return NodeGroup(
        device=device,
        nodes=nodes,
        devices_per_node=devices_per_node,
        intra=intra,
        inter=scale_out_link(device) if device.inter_node else intra,
        nics=devices_per_node,
    )


def _machine(device: Device) -> str:
    what = "CPU processes, one a core" if device.kind == "cpu" else "GPUs"
    return f"it has {device.per_node} {what}"


def _group_of_entry(entry: Any, own: Sequence[Device]) -> NodeGroup:
    device = load_device(entry.device, own)
    if entry.nodes > 1 and not (device.inter_node or entry.inter_link):
        raise InputError(entry.device, "has no known network between its nodes", "give the group an inter_link")
    group = node_group(device, nodes=entry.nodes, devices_per_node=entry.devices_per_node or device.per_node)
    intra = _override(group.intra, entry.intra_link, entry.intra_gb_per_s, entry.intra_latency_us)
    inter = _override(group.inter, entry.inter_link, entry.inter_gb_per_s, entry.inter_latency_us)
    return replace(group, intra=intra, inter=inter, nics=entry.nics_per_node or group.nics)


def _override(link: Link, name: str | None, gb_per_s: float | None, latency_us: float | None) -> Link:
    if name is not None:
        link = load_link(name)
    if gb_per_s is not None:
        link = replace(link, bytes_per_s=gb_per_s * GB, source="cluster file")
    if latency_us is not None:
        link = replace(link, latency_s=latency_us * US, source="cluster file")
    return link
