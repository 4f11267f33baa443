"""Two-stage dispatch and combine (DeepEP's normal kernels): one copy a host over the network, the rest over NVLink.

Dispatch: a rank sends a token once to each host that needs it, to the GPU of its own place in that host, which forwards
it to the ranks that hold its experts. Combine goes the same ways back: partial sums inside the host, then the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simtool.errors import InputError
from simtool.simulator.collectives.draft import Draft, Send
from simtool.simulator.collectives.hierarchical import host_groups
from simtool.simulator.collectives.routing_traffic import ExpertTraffic


def add_two_stage(
    draft: Draft, ranks: Sequence[int], traffic: ExpertTraffic, chunks: int, *, combine: bool = False
) -> list[int]:
    """A task a rank, stage and chunk; a chunk is forwarded when all ranks have theirs.

    traffic: of the dispatch; combine sends the same bytes backwards. Ranks must be listed host by host.
    """
    groups = host_groups(draft, ranks)
    if traffic.to_rank.shape != (len(ranks),) * 2 or traffic.to_host.shape != (len(ranks), len(groups)):
        raise InputError(traffic.to_rank.shape, f"is no traffic of {len(ranks)} ranks on {len(groups)} hosts")
    if [rank for group in groups for rank in group] != list(ranks):
        raise InputError(list(ranks), "must be listed host by host")
    network, inside = _network(groups, traffic), _inside(groups, traffic)
    if combine:
        network = [[(target, source, size) for source, target, size in sends] for sends in network]
        inside = [[(target, source, size) for source, target, size in sends] for sends in inside]
    stages = [inside, network] if combine else [network, inside]
    stages = [[sends for sends in stage if sends] for stage in stages]
    stages = [stage for stage in stages if stage]
    ends: list[int] = []
    last: list[list[int]] = [[] for _ in stages]
    lanes = 1 if chunks == 1 else len(stages)
    for _ in range(chunks):
        come: list[int] = []  # one task that all of the next stage wait for
        for place, stage in enumerate(stages):
            own = last[place] or [-1] * len(stage)
            now = []
            for sends, before in zip(stage, own, strict=True):
                waits = come if before < 0 else [*come, before]
                parts = [(a, b, size / chunks) for a, b, size in sends]
                now.append(draft.add("two-stage", parts, after=waits, lanes=lanes))
            come, last[place] = [draft.add("chunk has come", [], after=now)], now
        ends += come
    return ends


def _network(groups: Sequence[Sequence[int]], traffic: ExpertTraffic) -> list[list[Send]]:
    """A rank's copies for other hosts, to its peer there."""
    per_host, sends = len(groups[0]), []
    for host, group in enumerate(groups):
        for place, rank in enumerate(group):
            row = traffic.to_host[host * per_host + place]
            others = [(rank, groups[other][place], float(row[other])) for other in range(len(groups)) if other != host]
            sends.append([send for send in others if send[2] > 0])
    return sends


def _inside(groups: Sequence[Sequence[int]], traffic: ExpertTraffic) -> list[list[Send]]:
    """What a rank forwards inside its host: the copies that its peers of all hosts, itself among them, send there."""
    per_host, sends = len(groups[0]), []
    for host, group in enumerate(groups):
        columns = slice(host * per_host, (host + 1) * per_host)
        for place, rank in enumerate(group):
            forwarded = traffic.to_rank[np.arange(len(groups)) * per_host + place, columns].sum(axis=0)
            sends.append(
                [(rank, group[k], float(forwarded[k])) for k in range(per_host) if k != place and forwarded[k]]
            )
    return sends
