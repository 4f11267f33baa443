"""Checker of expert placements: plainly, slot by slot, by the rules of the problem. It shares no code with a search."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simtool.planners.check import CheckError
from simtool.planners.experts.problem import ExpertProblem, Measures

_CLOSE = 1e-9


def check_expert_placement(
    problem: ExpertProblem, layer: int, held: Sequence[Sequence[int]], claimed: Measures
) -> None:
    """held: the experts of each GPU. CheckError names the broken rule; silence means that all hold.

    Slots in use, known experts, one replica at least of each, groups whole and evenly on nodes where the problem ties
    them, and the highest load, crossing load and moved bytes that are claimed.
    """
    if len(held) != problem.gpus or any(len(row) != problem.slots for row in held):
        raise CheckError("slots", f"not {problem.gpus} GPUs of {problem.slots} experts")
    counts = [0] * problem.experts
    for gpu, row in enumerate(held):
        for expert in row:
            if not 0 <= expert < problem.experts:
                raise CheckError("expert", f"GPU {gpu} holds expert {expert} of {problem.experts}")
            counts[expert] += 1
    if 0 in counts:
        raise CheckError("replica", f"expert {counts.index(0)} is nowhere")
    if problem.hierarchical:
        _check_groups(problem, held)
    _check_claims(problem, layer, held, counts, claimed)


def _check_groups(problem: ExpertProblem, held: Sequence[Sequence[int]]) -> None:
    homes: dict[int, set[int]] = {}
    for gpu, row in enumerate(held):
        for expert in row:
            homes.setdefault(expert * problem.groups // problem.experts, set()).add(gpu * problem.nodes // problem.gpus)
    for group, nodes in sorted(homes.items()):
        if len(nodes) > 1:
            raise CheckError("group", f"group {group} is on nodes {sorted(nodes)}")
    for node in range(problem.nodes):
        mine = sum(nodes == {node} for nodes in homes.values())
        if mine * problem.nodes != problem.groups:
            raise CheckError("even", f"node {node} has {mine} of {problem.groups} groups")


def _check_claims(
    problem: ExpertProblem, layer: int, held: Sequence[Sequence[int]], counts: Sequence[int], claimed: Measures
) -> None:
    total = math.fsum(problem.loads[layer].tolist())
    highest, crossing, moved = 0.0, 0.0, 0
    for gpu, row in enumerate(held):
        mine = [float(problem.loads[layer, expert]) / counts[expert] for expert in row]
        highest = max(highest, math.fsum(mine))
        node = gpu * problem.nodes // problem.gpus
        for expert, share in zip(row, mine, strict=True):
            if problem.sources is None:
                crossing += share * (problem.nodes - 1) / problem.nodes
            else:
                others = [other for other in range(problem.nodes) if other != node]
                crossing += sum(float(problem.sources[other, layer, expert]) for other in others) / counts[expert]
        if problem.present is not None:
            there = problem.present[layer, gpu * problem.slots : (gpu + 1) * problem.slots].tolist()
            moved += sum(expert not in there for expert in set(row))
    for rule, value, said in (
        ("load", highest, claimed.highest_load),
        ("crossing", crossing, claimed.crossing_load),
        ("moved", moved * problem.expert_bytes, claimed.moved_bytes),
    ):
        if abs(value - said) > _CLOSE * max(total, value):
            raise CheckError(rule, f"{value:.12g}, {said:.12g} is claimed")
