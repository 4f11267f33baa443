"""Checker of rings and path plans: plain, slow, and without the planners' code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simtool.hardware.topology import Topology
from simtool.planners.check import CheckError


def check_ring(order: Sequence[int], bytes_per_s: Sequence[Sequence[float]], claimed: float) -> None:
    """Every peer once, and no edge slower than the bytes/s claimed."""
    if sorted(order) != list(range(len(bytes_per_s))):
        raise CheckError("peers", f"{list(order)} does not have each of {len(bytes_per_s)} peers once")
    for place, peer in enumerate(order):
        following = order[(place + 1) % len(order)]
        if not bytes_per_s[peer][following] >= claimed * (1 - 1e-9):
            raise CheckError("bandwidth", f"{peer} to {following} has {bytes_per_s[peer][following]}, not {claimed}")


def check_paths(
    topology: Topology,
    flows: Sequence[tuple[int, int, float]],
    paths: Mapping[tuple[int, int], Sequence[int]],
    claimed_s: float,
) -> None:
    """Each flow's path leads from its source to its target, through no other device; no link is busier than claimed."""
    busy = [0.0] * len(topology.links)
    for source, target, amount in flows:
        place = topology.devices[source]
        for hop, index in enumerate(paths[source, target]):
            link = topology.links[index]
            if link.source != place or (hop and place in topology.devices):
                raise CheckError("path", f"{link.name} does not go on from {place}")
            place = link.target
            busy[index] += amount / link.bytes_per_s
        if place != topology.devices[target]:
            raise CheckError("path", f"the flow to {topology.devices[target]} ends at {place}")
    if max(busy) > claimed_s * (1 + 1e-9):
        raise CheckError("load", f"a link is busy for {max(busy)} s, {claimed_s} are claimed")
