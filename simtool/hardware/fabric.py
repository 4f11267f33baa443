"""Topologies built from what is known: a cluster's nodes and NICs on a leaf/spine fabric, or pairwise measurements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from simtool.errors import InputError
from simtool.hardware.cluster import Cluster, NodeGroup
from simtool.hardware.collective_algorithms import LINK_EFFICIENCY
from simtool.hardware.links import Link, load_link
from simtool.hardware.topology import DirectedLink, Topology, check_topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """Leaf switches over NICs, spine switches over leaves.

    rails: NIC r of every node goes to leaf r of its pod (rail-optimised); else a pod has one leaf for all its NICs.
    nodes_per_leaf: nodes of a pod. oversubscription: NIC bandwidth under a leaf over its uplinks'; each uplink is as
    fast as a NIC and goes to a spine of its own. switch_latency_s: of each switch beyond the first.
    """

    rails: bool = True
    nodes_per_leaf: int = 32  # half of the 64 ports of a 400 Gb/s switch (NVIDIA Quantum-2 QM9700 datasheet)
    oversubscription: float = 1.0
    switch_latency_s: float = 0.0


def cluster_topology(cluster: Cluster, fabric: Fabric | None = None) -> Topology:
    """Every device of the cluster, in its order. Rates are the catalogue's times `LINK_EFFICIENCY` of their kind."""
    fabric = fabric or Fabric()
    if fabric.nodes_per_leaf < 1 or not (math.isfinite(fabric.oversubscription) and fabric.oversubscription > 0):
        raise InputError(fabric, "is no fabric", "nodes_per_leaf >= 1, oversubscription > 0")
    devices: list[str] = []
    hosts: list[int] = []
    links: list[DirectedLink] = []
    reducing: set[str] = set()
    pods: list[tuple[NodeGroup, list[int]]] = []
    for group in cluster.groups:
        for node in range(group.nodes):
            host = hosts[-1] + 1 if hosts else 0
            names = [f"n{host}.d{place}" for place in range(group.devices_per_node)]
            devices += names
            hosts += [host] * len(names)
            links += _node_links(group, host, names)
            if group.intra.reduces:
                reducing.add(f"n{host}.switch")
            if node % fabric.nodes_per_leaf == 0:
                pods.append((group, []))
            pods[-1][1].append(host)
    if hosts[-1]:
        links += _fabric_links(pods, fabric)
    return check_topology(
        Topology(devices=tuple(devices), hosts=tuple(hosts), links=tuple(links), reducing=frozenset(reducing))
    )


def payload_rate(link: Link) -> float:
    """Bytes/s that large messages reach on the link, one direction."""
    return link.bytes_per_s * LINK_EFFICIENCY[link.kind]


def link_between(source: str, target: str, rate: float, latency_s: float = 0.0) -> DirectedLink:
    """A link named after its ends."""
    return DirectedLink(name=f"{source}>{target}", source=source, target=target, bytes_per_s=rate, latency_s=latency_s)


def both_ways(one: str, other: str, rate: float, latency_s: float, back_s: float = 0.0) -> Iterator[DirectedLink]:
    """The link and its way back; only the way there has the latency, so that a path counts it once."""
    yield link_between(one, other, rate, latency_s)
    yield link_between(other, one, rate, back_s)


def _node_links(group: NodeGroup, host: int, names: Sequence[str]) -> Iterator[DirectedLink]:
    """Devices to their switch (or host bridge) and to their NICs, which PCIe joins to the device."""
    rate = payload_rate(group.intra)
    bus = load_link(group.device.pcie).bytes_per_s  # what NICs reach is in their own efficiency
    shared = group.intra.kind != "nvlink"  # one PCIe port carries what stays in the node and what leaves it
    for place, name in enumerate(names):
        nic = f"n{host}.nic{place * group.nics // len(names)}"
        if not shared:
            yield from both_ways(name, f"n{host}.switch", rate, group.intra.latency_s)
            yield from _through_nic(name, nic, bus)
            continue
        port = f"{name}.port"
        yield from both_ways(name, port, bus, 0.0)
        yield from both_ways(port, f"n{host}.switch", rate, group.intra.latency_s)
        yield from _through_nic(port, nic, bus)


def _through_nic(place: str, nic: str, rate: float) -> Iterator[DirectedLink]:
    """A NIC is two places, in and out: nothing turns round inside it."""
    yield link_between(place, f"{nic}.out", rate)
    yield link_between(f"{nic}.in", place, rate)


def _fabric_links(pods: Sequence[tuple[NodeGroup, list[int]]], fabric: Fabric) -> Iterator[DirectedLink]:
    """NICs to leaves, leaves to spines. A leaf has as many uplinks as its NICs need; the next leaf begins again."""
    for pod, (group, hosts) in enumerate(pods):
        rate = payload_rate(group.inter)
        for rail in range(group.nics if fabric.rails else 1):
            leaf = f"leaf{pod}.{rail}"
            nics = [f"n{h}.nic{n}" for h in hosts for n in ([rail] if fabric.rails else range(group.nics))]
            for nic in nics:
                yield link_between(f"{nic}.out", leaf, rate, group.inter.latency_s)
                yield link_between(leaf, f"{nic}.in", rate)
            uplinks = math.ceil(len(nics) / fabric.oversubscription - 1e-9)
            share = rate * len(nics) / fabric.oversubscription / uplinks
            for spine in range(uplinks):
                seconds = fabric.switch_latency_s
                yield from both_ways(leaf, f"spine{spine}", share, seconds, seconds)


def wide_area_topology(
    bytes_per_s: ArrayLike, latency_s: ArrayLike = 0.0, port_bytes_per_s: ArrayLike | None = None
) -> Topology:
    """Peers over the internet. bytes_per_s [n, n]: measured from row to column (0 or NaN: not connected; the diagonal
    is ignored). latency_s: one way, [n, n] or one for all. port_bytes_per_s: what a peer sends, and receives, in all.
    """
    rates = np.asarray(bytes_per_s, np.float64)
    if rates.ndim != 2 or rates.shape[0] != rates.shape[1] or not len(rates):
        raise InputError(rates.shape, "is no matrix of pairwise bandwidths", "[peers, peers]")
    count = len(rates)
    delays = np.broadcast_to(np.asarray(latency_s, np.float64), rates.shape)
    links = []
    for i, j in zip(*np.nonzero(~np.eye(count, dtype=bool) & (np.nan_to_num(rates) > 0)), strict=True):
        ends = (f"peer{i}", f"peer{j}") if port_bytes_per_s is None else (f"peer{i}.out", f"peer{j}.in")
        name, rate, seconds = f"peer{i}>peer{j}", float(rates[i, j]), float(delays[i, j])
        links.append(DirectedLink(name=name, source=ends[0], target=ends[1], bytes_per_s=rate, latency_s=seconds))
    if port_bytes_per_s is not None:
        for i, rate in enumerate(np.broadcast_to(np.asarray(port_bytes_per_s, np.float64), (count,)).tolist()):
            links += [link_between(f"peer{i}", f"peer{i}.out", rate), link_between(f"peer{i}.in", f"peer{i}", rate)]
    devices = tuple(f"peer{i}" for i in range(count))
    return check_topology(Topology(devices=devices, hosts=tuple(range(count)), links=tuple(links)))
