"""Collectives in levels: inside each host over its fast links, between hosts on every rail at once, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

from simtool.errors import InputError
from simtool.simulator.collectives.draft import Draft
from simtool.simulator.collectives.ring import add_ring


def host_groups(draft: Draft, ranks: Sequence[int]) -> list[list[int]]:
    """The ranks of each host, in the order given. InputError where hosts have unequally many."""
    groups: dict[int, list[int]] = {}
    for rank in ranks:
        groups.setdefault(draft.router.topology.hosts[rank], []).append(rank)
    if len({len(group) for group in groups.values()}) > 1:
        raise InputError([len(group) for group in groups.values()], "ranks of the hosts must be equally many")
    return list(groups.values())


def add_hierarchical(draft: Draft, kind: str, ranks: Sequence[int], amount: float, chunks: int) -> list[int]:
    """all_reduce: reduce-scatter inside, all-reduce on rails, all-gather inside; gather and scatter have two stages.

    A stage of a chunk waits for all ranks of the stage before; stages of different chunks overlap.
    """
    groups = host_groups(draft, ranks)
    inside, size = len(groups[0]), amount / chunks
    rails = [[group[place] for group in groups] for place in range(inside)]
    within = (groups, size, 1)
    between = (rails, size / inside, 2 if kind == "all_reduce" else 1)
    order = {
        "all_reduce": (within, between, within),
        "all_gather": (between, within),
        "reduce_scatter": (within, between),
    }[kind]
    stages = [stage for stage in order if len(stage[0][0]) > 1]
    ends: list[int] = []
    last: dict[int, list[int]] = {}
    for _ in range(chunks):
        before: list[int] = []
        for place, (rings, share, rounds) in enumerate(stages):
            waits = [*before, *last.get(place, [])]
            before = [
                task
                for ring in rings
                for task in add_ring(draft, [ring], share, rounds, after=waits, lanes=1 if chunks == 1 else len(stages))
            ]
            last[place] = before
        ends += before
    return ends
