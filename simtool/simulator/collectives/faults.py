"""Faults: links that slow down or fail, and the source × destination delays that show it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.hardware.routes import Router
from simtool.hardware.topology import Topology
from simtool.simulator.collectives.draft import Draft
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import RateChange


def slow_link(
    topology: Topology, link: str, share: float, at_s: float = 0.0, until_s: float | None = None
) -> list[RateChange]:
    """The link serves `share` of its rate from `at_s` on (0: it has failed), and all of it again from `until_s` on."""
    rates = topology.rates
    if link not in rates:
        raise InputError(link, "is no link of the topology", f"e.g. {topology.links[0].name}")
    if not 0.0 <= share <= 1.0:
        raise InputError(share, "must be a share of the link's rate", "0 (failed) to 1")
    changes = [RateChange(at_s=at_s, resource=link, rate=share * rates[link])]
    return changes if until_s is None else [*changes, RateChange(at_s=until_s, resource=link, rate=rates[link])]


def delay_matrix(
    router: Router, ranks: Sequence[int], size: float, changes: Sequence[RateChange] = ()
) -> NDArray[np.float64]:
    """[n, n] seconds that `size` bytes take from row to column, NaN on the diagonal: what the timestamps of collectives
    show. Round k sends from each rank to the k-th after it; rounds do not meet, and start with the rates of `changes`.
    """
    count = len(ranks)
    delays = np.full((count, count), np.nan)
    for shift in range(1, count):
        draft = Draft(router=router)
        for place, rank in enumerate(ranks):
            draft.add("probe", [(rank, ranks[(place + shift) % count], size)])
        graph = TaskGraph(resources=draft.resources(), tasks=tuple(draft.tasks))
        known = graph.rates
        ends = simulate_tasks(graph, [change for change in changes if change.resource in known]).end_s
        delays[np.arange(count), (np.arange(count) + shift) % count] = ends
    return delays
