"""Collective: one call. Its tasks go into a graph of their own, or beside others into a step's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from simtool.errors import InputError
from simtool.hardware.routes import Router
from simtool.simulator.collectives.direct import add_direct, add_in_switch, even_pairs
from simtool.simulator.collectives.draft import Draft, SendCosts
from simtool.simulator.collectives.hierarchical import add_hierarchical, host_groups
from simtool.simulator.collectives.ring import ROUNDS, add_ring, add_stepped_ring, neighbours, rail_rings
from simtool.simulator.collectives.routing_traffic import ExpertTraffic
from simtool.simulator.collectives.tree import add_stepped_tree, add_tree
from simtool.simulator.collectives.two_stage import add_two_stage
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import RateChange
from simtool.simulator.tasks.timeline import Timeline

Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv"]
Algorithm = Literal["ring", "tree", "nvls", "one_shot", "two_shot", "direct", "hierarchical"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """size: bytes as nccl-tests count: all_reduce, all_to_all, send_recv the buffer of a rank, all_gather its output,
    reduce_scatter its input. ranks: of the topology, in ring order. rings: over the rails of the hosts, at once.

    chunks: pieces that a hierarchy or a stepped tree pipelines. stepped: a task for every step or pair instead of one
    for all of a rank's (or of the ring's): slower to simulate, and the reference for the other.
    """

    kind: Kind
    size: float
    ranks: tuple[int, ...]
    algorithm: Algorithm = "ring"
    rings: int = 1
    chunks: int = 1
    stepped: bool = False


def add_collective(draft: Draft, call: Collective) -> list[int]:
    """Append the collective's tasks: indices of the last ones. InputError for what the algorithm cannot do."""
    _check(draft, call)
    ranks, size, count = call.ranks, call.size, len(call.ranks)
    if count == 1:
        return []
    match call.kind, call.algorithm:
        case "send_recv", "ring" | "direct":
            return [draft.add("send", [send]) for send in neighbours(ranks, size)]
        case (("all_reduce" | "all_gather" | "reduce_scatter"), "ring"):
            orders = [list(ranks)] if call.rings == 1 else rail_rings(host_groups(draft, ranks), call.rings)
            add = add_stepped_ring if call.stepped else add_ring
            return add(draft, orders, size, ROUNDS[call.kind])
        case "all_reduce", "tree":
            return add_stepped_tree(draft, ranks, size, call.chunks) if call.stepped else add_tree(draft, ranks, size)
        case "all_reduce", "nvls":
            return add_in_switch(draft, ranks, size)
        case "all_reduce", "one_shot":
            return add_direct(draft, ranks, even_pairs(count, size), stepped=call.stepped)
        case "all_reduce", "two_shot" | "direct":
            pairs = even_pairs(count, size / count)
            scattered = add_direct(draft, ranks, pairs, stepped=call.stepped)
            return add_direct(draft, ranks, pairs, stepped=call.stepped, after=scattered)
        case (("all_gather" | "reduce_scatter" | "all_to_all"), "direct"):
            return add_direct(draft, ranks, even_pairs(count, size / count), stepped=call.stepped)
        case (("all_reduce" | "all_gather" | "reduce_scatter"), "hierarchical"):
            return add_hierarchical(draft, call.kind, ranks, size, call.chunks)
        case "all_to_all", "hierarchical":
            return add_two_stage(draft, ranks, _rank_by_rank(draft, call), call.chunks)
        case _:
            raise InputError(call.algorithm, f"does not do {call.kind}")


def collective_graph(draft: Draft) -> TaskGraph:
    """The draft's tasks alone, with the links that they use; its `sm` resources are left out."""
    if draft.sms:
        raise InputError(draft.sms, "multiprocessors are held in a step's graph", "add the tasks to it yourself")
    return TaskGraph(resources=draft.resources(), tasks=tuple(draft.tasks))


def simulate_collective(
    router: Router, call: Collective, *, costs: SendCosts | None = None, changes: Sequence[RateChange] = ()
) -> Timeline:
    """Timeline of one collective alone on the topology; `makespan_s` is its time. changes: links that slow down."""
    draft = Draft(router=router, costs=costs or SendCosts())
    add_collective(draft, call)
    graph = collective_graph(draft)
    return simulate_tasks(graph, [change for change in changes if change.resource in graph.rates])


def simulate_experts(
    router: Router, ranks: Sequence[int], traffic: ExpertTraffic, *, costs: SendCosts, chunks: int = 0
) -> Timeline:
    """A dispatch alone. chunks 0: direct sends to all ranks (low latency); else two stages in so many chunks."""
    draft = Draft(router=router, costs=costs)
    if chunks:
        add_two_stage(draft, ranks, traffic, chunks)
    else:
        add_direct(draft, ranks, traffic.to_rank)
    return simulate_tasks(collective_graph(draft))


def _rank_by_rank(draft: Draft, call: Collective) -> ExpertTraffic:
    groups, count = host_groups(draft, call.ranks), len(call.ranks)
    share = call.size / count
    to_host = np.tile([share * len(group) for group in groups], (count, 1))
    return ExpertTraffic(to_rank=np.full((count, count), share), to_host=to_host)


def _check(draft: Draft, call: Collective) -> None:
    known = len(draft.router.topology.devices)
    if not call.ranks or len(set(call.ranks)) < len(call.ranks) or not all(0 <= rank < known for rank in call.ranks):
        raise InputError(call.ranks, f"must be different ranks below {known}")
    if not (call.size >= 0 and call.size < float("inf")):
        raise InputError(call.size, "bytes must be finite and not negative")
    if call.chunks < 1 or call.rings < 1:
        raise InputError((call.chunks, call.rings), "chunks and rings are at least 1")
