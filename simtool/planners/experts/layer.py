"""One layer placed: the least highest load, then its crossing load and moves, each with its certificate."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.planners.certificate import Certificate
from simtool.planners.experts.bound import load_bound
from simtool.planners.experts.exchange import exchanged
from simtool.planners.experts.greedy import greedy_placement
from simtool.planners.experts.nodes import Groups, NodeSearch
from simtool.planners.experts.problem import ExpertProblem, Measures, measures
from simtool.planners.experts.relabel import relabelled
from simtool.planners.experts.search import Balanced, balance
from simtool.planners.experts.settle import CLOSE, crossing_bound, rank, settled
from simtool.planners.schedule.progress import Effort

Places = NDArray[np.int64]
_SHARE = 0.3  # of the effort for traffic and moves, where they matter


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """held, greedy: [gpus, slots], the planned placement and EPLB's; `now`: measures of the present one, if any.

    load, crossing, moved: certificates in the order of what they decide. Each takes what came before as given.
    """

    held: Places
    measures: Measures
    greedy: Places
    greedy_measures: Measures
    now: Measures | None
    load: Certificate
    crossing: Certificate
    moved: Certificate


def place_layer(problem: ExpertProblem, layer: int, effort: Effort, near: float) -> LayerPlan:
    """near: relative distance to the bound at which the search for a lower highest load ends."""
    started = time.monotonic()
    matters = problem.sources is not None or problem.present is not None
    search = effort.part(1 - _SHARE) if matters else effort
    greedy = greedy_of(problem, layer)
    found = (
        _balanced_nodes(problem, layer, search, near, greedy)
        if problem.hierarchical
        else _balanced_all(problem, layer, search, near)
    )
    starts = [greedy, found.held]
    now = problem.now(layer)
    fits = now is not None and complete(problem, now)
    if now is not None and fits:
        starts.append(now)
    best = min((measures(problem, layer, held).highest_load, place) for place, held in enumerate(starts))
    limit = best[0] * (1 + problem.load_slack)
    if now is not None and fits:
        starts.append(_exchanged_nodes(problem, layer, now, limit))
    starts += [relabelled(problem, layer, held) for held in starts]
    held = min(starts, key=lambda held: rank(measures(problem, layer, held), limit))
    if matters:
        held = settled(problem, layer, held, limit, effort.part(_SHARE))
    return _plan(problem, layer, held, greedy, found.bound, started)


def greedy_of(problem: ExpertProblem, layer: int) -> Places:
    """EPLB's placement of the layer, hierarchical or global as the problem asks: [gpus, slots]."""
    groups, nodes = (problem.groups, problem.nodes) if problem.hierarchical else (1, 1)
    loads = problem.loads[layer : layer + 1]
    placed: Places = greedy_placement(loads, problem.replicas, groups, nodes, problem.gpus)[0]
    return placed.reshape(problem.gpus, problem.slots)


def complete(problem: ExpertProblem, held: Places) -> bool:
    """Whether a placement has every expert, and groups whole and evenly on nodes where the problem asks for it."""
    if len(np.unique(held)) < problem.experts:
        return False
    return not problem.hierarchical or division_of(problem, held) is not None


def division_of(problem: ExpertProblem, held: Places) -> tuple[Groups, ...] | None:
    """The groups of each node, in the nodes' order; None where a group is on two nodes or a node has too many."""
    size = problem.experts // problem.groups
    nodes = [tuple(np.unique(part // size).tolist()) for part in np.split(held, problem.nodes)]
    even = all(len(node) == problem.groups // problem.nodes for node in nodes)
    return tuple(nodes) if even and len({group for node in nodes for group in node}) == problem.groups else None


def experts_of(problem: ExpertProblem, groups: Groups) -> Places:
    """The experts of some groups, rising."""
    size = problem.experts // problem.groups
    return np.concatenate([np.arange(group * size, (group + 1) * size) for group in sorted(groups)])


def _balanced_all(problem: ExpertProblem, layer: int, effort: Effort, near: float) -> Balanced:
    now = problem.now(layer)
    starts = [now] if now is not None and complete(problem, now) else []
    return balance(problem.loads[layer], problem.gpus, problem.slots, effort=effort, near=near, starts=starts)


def _balanced_nodes(problem: ExpertProblem, layer: int, effort: Effort, near: float, greedy: Places) -> Balanced:
    load, gpus = problem.loads[layer], problem.gpus // problem.nodes
    share = effort.part(1 / (2 * problem.nodes))
    search = NodeSearch(
        bound_of=lambda node: load_bound(load[experts_of(problem, node)], gpus, problem.slots),
        solve=lambda node: balance(load[experts_of(problem, node)], gpus, problem.slots, effort=share, near=near),
        near=near,
    )
    first = division_of(problem, greedy)
    assert first is not None, "the greedy keeps groups whole"
    floor = load_bound(load, problem.gpus, problem.slots)
    found = search.best(problem.groups, problem.nodes, first, floor)
    held = np.concatenate([experts_of(problem, node)[search.solved[node].held] for node in found.nodes])
    return Balanced(held=held, highest=found.highest, bound=max(found.bound, min(floor, found.highest)))


def _exchanged_nodes(problem: ExpertProblem, layer: int, held: Places, limit: float) -> Places:
    """`held` with only the exchanges that bring the highest load to `limit`, node by node where groups are tied."""
    if not problem.hierarchical:
        return exchanged(problem.loads[layer], held, limit)
    parts = []
    for part in np.split(held, problem.nodes):
        mine = np.unique(part)
        local = exchanged(problem.loads[layer][mine], np.searchsorted(mine, part), limit)
        parts.append(mine[local])
    return np.concatenate(parts)


def _plan(problem: ExpertProblem, layer: int, held: Places, greedy: Places, bound: float, started: float) -> LayerPlan:
    found, now = measures(problem, layer, held), problem.now(layer)
    seconds = time.monotonic() - started
    least = min(crossing_bound(problem, layer), found.crossing_load)
    return LayerPlan(
        held=held,
        measures=found,
        greedy=greedy,
        greedy_measures=measures(problem, layer, greedy),
        now=measures(problem, layer, now) if now is not None and complete(problem, now) else None,
        load=_certificate(found.highest_load, min(bound, found.highest_load), seconds, "highest GPU load"),
        crossing=_certificate(found.crossing_load, least, seconds, "crossing load at any highest load"),
        moved=_certificate(found.moved_bytes, 0.0, seconds, "moved bytes; nothing moved is the only bound"),
    )


def _certificate(objective: float, bound: float, seconds: float, scope: str) -> Certificate:
    gap = (objective - bound) / objective if objective > bound + CLOSE * objective else 0.0
    return Certificate(
        status="OPTIMAL" if gap <= 1e-6 else "FEASIBLE",
        objective=objective,
        bound=bound,
        gap=gap,
        seconds=seconds,
        scope=scope,
    )
