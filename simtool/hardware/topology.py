"""Topology: devices, NICs and switches, joined by links of one direction each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simtool.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectedLink:
    """One direction between neighbours (device, NIC, switch). bytes_per_s: what large messages reach; latency_s: a
    message's, software included where the link is the first of its kind on a path.
    """

    name: str
    source: str
    target: str
    bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """devices: names, by rank. hosts: the node of each device. reducing: switches that add up what they carry."""

    devices: tuple[str, ...]
    hosts: tuple[int, ...]
    links: tuple[DirectedLink, ...]
    reducing: frozenset[str] = frozenset()

    @property
    def rates(self) -> dict[str, float]:
        """Link → bytes/s."""
        return {link.name: link.bytes_per_s for link in self.links}

    def members(self) -> dict[int, tuple[int, ...]]:
        """Host → ranks of its devices, in order."""
        found: dict[int, list[int]] = {}
        for rank, host in enumerate(self.hosts):
            found.setdefault(host, []).append(rank)
        return {host: tuple(ranks) for host, ranks in found.items()}


def check_topology(topology: Topology) -> Topology:
    """The topology itself. InputError for double names, links to themselves, and rates or latencies that are none."""
    names = [link.name for link in topology.links]
    if len(set(names)) < len(names) or len(set(topology.devices)) < len(topology.devices):
        raise InputError("topology", "has two links or two devices of one name")
    if not topology.devices or len(topology.hosts) != len(topology.devices):
        raise InputError(len(topology.hosts), f"hosts for {len(topology.devices)} devices", "one host a device")
    for link in topology.links:
        if not (math.isfinite(link.bytes_per_s) and link.bytes_per_s > 0):
            raise InputError(link.bytes_per_s, f"bytes/s of {link.name} must be positive and finite")
        if not (math.isfinite(link.latency_s) and link.latency_s >= 0):
            raise InputError(link.latency_s, f"latency of {link.name} must be finite and not negative")
        if link.source == link.target:
            raise InputError(link.name, "joins a place to itself")
    return topology
