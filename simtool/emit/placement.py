"""Which devices of which node each replica takes: replicas in the plan's order, each on one node where it fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simtool.errors import InputError
from simtool.hardware.own_cluster import own_cluster
from simtool.plan import Plan, Pool

FIRST_PORT = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One engine. nodes: numbers of the nodes it spans, the first leads. devices: their numbers in each node.

    whole_node: it takes every device of its nodes, so that nothing has to be hidden from it.
    """

    pool: int
    number: int
    nodes: tuple[int, ...]
    devices: tuple[int, ...]
    whole_node: bool

    @property
    def port(self) -> int:
        """Where it listens; each replica has its own, so that several share a node."""
        return FIRST_PORT + 1 + self.number


@dataclass(slots=True)
class _Node:
    device: str
    size: int
    used: int = 0


def placed_replicas(plan: Plan) -> tuple[Replica, ...]:
    """All replicas of all pools. Raises InputError where they do not fit into the cluster's nodes."""
    nodes = [
        _Node(device=group.device.name, size=group.devices_per_node)
        for group in own_cluster(plan.cluster, plan.profiles).groups
        for _ in range(group.nodes)
    ]
    replicas: list[Replica] = []
    for number, pool in enumerate(plan.pools):
        for _ in range(pool.replicas):
            replicas.append(_place(pool, number, len(replicas), nodes, plan.cluster))
    return tuple(replicas)


def _place(pool: Pool, pool_number: int, number: int, nodes: list[_Node], cluster: str) -> Replica:
    wanted = pool.parallel.devices
    mine = [place for place, node in enumerate(nodes) if node.device == pool.device]
    if not mine:
        raise InputError(pool.device, f"is not in the cluster {cluster}", "a plan's pools use the cluster's devices")
    for place in mine:
        node = nodes[place]
        if node.size - node.used >= wanted:
            devices = tuple(range(node.used, node.used + wanted))
            node.used += wanted
            return Replica(
                pool=pool_number, number=number, nodes=(place,), devices=devices, whole_node=wanted == node.size
            )
    chosen = list(_free_nodes(wanted, mine, nodes))
    if sum(nodes[place].size for place in chosen) != wanted:
        rule = f"replica {number} of {wanted} x {pool.device} fits neither on one node nor on whole free nodes"
        raise InputError(cluster, rule, "a replica of several nodes takes them whole")
    for place in chosen:
        nodes[place].used = nodes[place].size
    devices = tuple(range(nodes[chosen[0]].size))
    return Replica(pool=pool_number, number=number, nodes=tuple(chosen), devices=devices, whole_node=True)


def _free_nodes(wanted: int, mine: list[int], nodes: list[_Node]) -> Iterator[int]:
    """Free nodes of one size until they hold `wanted` devices."""
    size = max((nodes[place].size for place in mine if not nodes[place].used), default=0)
    for place in mine:
        if wanted > 0 and not nodes[place].used and nodes[place].size == size:
            wanted -= size
            yield place
