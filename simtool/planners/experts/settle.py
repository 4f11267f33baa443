"""Less traffic and fewer moves at the same highest load: CP-SAT on a few GPUs at a time, from a placement on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.planners.certificate import SEED
from simtool.planners.experts.exchange import gpu_loads
from simtool.planners.experts.model import Rest, solve_gpus
from simtool.planners.experts.problem import ExpertProblem, Measures, measures
from simtool.planners.schedule.progress import Effort

Places = NDArray[np.int64]
CLOSE = 1e-9  # relative difference of equal loads and traffic
_ROUND = 0.2  # deterministic seconds of a neighbourhood
_STALE = 8  # neighbourhoods without gain after which the search ends


def rank(found: Measures, limit: float) -> tuple[float, float, float]:
    """What to minimise once the highest load is at most `limit`; numbers that differ by rounding are equal."""
    load = 0.0 if found.highest_load <= limit * (1 + CLOSE) else found.highest_load
    return load, float(f"{found.crossing_load:.9g}"), found.moved_bytes


def crossing_bound(problem: ExpertProblem, layer: int) -> float:
    """Crossing load that no placement avoids: an expert is at best held where most of its tokens come from."""
    source = problem.source(layer)
    return float((source.sum(axis=0) - source.max(axis=0)).sum())


def settled(problem: ExpertProblem, layer: int, held: Places, limit: float, effort: Effort) -> Places:
    """`held` ([gpus, slots]) with less crossing load, then fewer moves, at highest loads up to `limit`.

    Groups stay on their nodes where the placement is hierarchical.
    """
    rng, work, stale, size = np.random.default_rng(SEED), 0.0, 0, 3
    score = rank(measures(problem, layer, held), limit)
    floor = crossing_bound(problem, layer) * (1 + CLOSE)
    while work < effort.limit and stale < _STALE and (score[1] > floor or score[2] > 0):
        chosen = _some_gpus(problem, layer, held, size, rng)
        part = effort.part(min(_ROUND, effort.limit - work) / effort.limit)
        solved = solve_gpus(
            problem.loads[layer], held, chosen, part, rest=_rest(problem, layer, held, limit, chosen), reach=1
        )
        work += max(solved.work, 1e-3)
        if (reached := rank(measures(problem, layer, solved.held), limit)) < score:
            held, score, stale = solved.held, reached, 0
        else:
            stale += 1
            size = max(2, size + (1 if solved.status == "OPTIMAL" else -1))
    return held


def _some_gpus(problem: ExpertProblem, layer: int, held: Places, size: int, rng: np.random.Generator) -> list[int]:
    """GPUs of one node where groups are tied to nodes, otherwise of all; those to which most has to move come first."""
    a_node = problem.gpus // problem.nodes
    first = int(rng.integers(problem.nodes)) * a_node if problem.hierarchical else 0
    pool = np.arange(first, first + a_node) if problem.hierarchical else np.arange(problem.gpus)
    now = problem.now(layer)
    weight = np.ones(len(pool))
    if now is not None:
        weight += [len(set(held[gpu].tolist()) - set(now[gpu].tolist())) for gpu in pool.tolist()]
    return sorted(rng.choice(pool, min(size, len(pool)), replace=False, p=weight / weight.sum()).tolist())


def _rest(problem: ExpertProblem, layer: int, held: Places, limit: float, chosen: list[int]) -> Rest:
    node = np.repeat(np.arange(problem.nodes), problem.gpus // problem.nodes)
    there = np.ones((problem.gpus, problem.experts), bool)
    now = problem.now(layer)
    if now is not None:
        there[:] = False
        there[np.arange(problem.gpus)[:, None], now] = True
    most = max(limit, float(gpu_loads(problem.loads[layer], held)[chosen].max()))
    return Rest(limit=most, local=problem.source(layer)[node], there=there)
