"""Which GPU takes which of the planned sets of experts: no load changes, but what crosses nodes and what moves does.

What a set costs on a GPU does not depend on the other sets, so the best assignment is found exactly (Hungarian method).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.planners.experts.model import keep_slots
from simtool.planners.experts.problem import ExpertProblem

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
_PARTS = 10**6  # crossing load is compared to this part of a layer's load


def relabelled(problem: ExpertProblem, layer: int, held: Places) -> Places:
    """`held` ([gpus, slots]) with its sets on the GPUs where least crosses nodes, then least moves.

    Hierarchical placements keep the sets of a node together: whole nodes are assigned, and GPUs within each.
    """
    from scipy.optimize import linear_sum_assignment

    cost = _costs(problem, layer, held)
    size = problem.gpus // problem.nodes if problem.hierarchical else problem.gpus
    blocks = problem.gpus // size
    inner = cost.reshape(blocks, size, blocks, size).transpose(0, 2, 1, 3)  # from, to, set, gpu
    solved = [[linear_sum_assignment(inner[a, b])[1] for b in range(blocks)] for a in range(blocks)]
    outer = [[inner[a, b][np.arange(size), solved[a][b]].sum() for b in range(blocks)] for a in range(blocks)]
    placed = np.empty_like(held)
    for a, b in zip(*linear_sum_assignment(np.array(outer)), strict=True):
        placed[b * size + solved[a][b]] = held[a * size : (a + 1) * size]
    now = problem.now(layer)
    if now is not None:
        placed = np.stack([keep_slots(row, old) for row, old in zip(placed, now, strict=True)])
    return placed


def _costs(problem: ExpertProblem, layer: int, held: Places) -> Floats:
    """[sets, gpus], whole numbers: crossing load first, then experts that have to come."""
    counts = np.maximum(np.bincount(held.ravel(), minlength=problem.experts), 1)
    source = problem.source(layer) / counts  # nodes, experts
    total = problem.loads[layer].sum()
    stays = np.stack([source[:, row].sum(axis=1) for row in held])  # sets, nodes
    crossing = np.rint((1.0 - stays / total) * _PARTS)
    cost = np.repeat(crossing, problem.gpus // problem.nodes, axis=1) * (problem.replicas + 1)
    now = problem.now(layer)
    if now is not None:
        holds = np.zeros((problem.gpus, problem.experts), bool)
        holds[np.arange(problem.gpus)[:, None], now] = True
        cost += np.stack([(~holds[:, np.unique(row)]).sum(axis=1) for row in held])
    return np.asarray(cost, np.float64)
