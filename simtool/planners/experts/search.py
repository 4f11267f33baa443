"""The least highest load: greedy and hot/cold starts, exchanges and kicks, then CP-SAT: whole, or a few GPUs at a time.

The best is kept throughout, so that nothing found is worse than the greedy or the placement that is there now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.planners.certificate import SEED
from simtool.planners.experts.bound import load_bound
from simtool.planners.experts.exchange import exchanged, gpu_loads, kicked, packed, swapped
from simtool.planners.experts.greedy import greedy_placement
from simtool.planners.experts.model import solve_gpus
from simtool.planners.experts.patterns import prove
from simtool.planners.schedule.progress import Effort

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
_ROUND = 0.5  # deterministic seconds of a neighbourhood
_THRESHOLDS = 24  # hot/cold starts
_STALE = 12  # neighbourhoods without gain after which the search ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Balanced:
    """held: [gpus, slots]. No placement has a highest load below `bound`; work: deterministic seconds spent."""

    held: Places
    highest: float
    bound: float
    work: float = 0.0


def balance(
    load: Floats, gpus: int, slots: int, *, effort: Effort, near: float, starts: Sequence[Places] = ()
) -> Balanced:
    """The placement of `load` ([experts]) with the least highest load that was found.

    near: relative distance to the bound that is near enough. starts: placements to begin from, beside the greedy.
    """
    bound = load_bound(load, gpus, slots)
    greedy = greedy_placement(load[None, :], gpus * slots, 1, 1, gpus)[0].reshape(gpus, slots)
    best = min((greedy, *starts), key=lambda held: gpu_loads(load, held).max())
    enough = bound / (1.0 - near)
    best = exchanged(load, best, enough)
    if gpu_loads(load, best).max() > enough:
        best = _from_thresholds(load, best, enough)
    open_ = gpu_loads(load, best).max() > enough
    proven = prove(load, best, bound, effort) if open_ and effort.limit > 0 else None
    if proven is not None:
        return _balanced(load, proven.held, proven.bound, proven.work)
    best = kicked(load, best, enough, np.random.default_rng(SEED))
    return _solve_parts(load, _balanced(load, best, bound), effort, enough)


def _balanced(load: Floats, held: Places, bound: float, work: float = 0.0) -> Balanced:
    highest = float(gpu_loads(load, held).max())
    return Balanced(held=held, highest=highest, bound=min(bound, highest), work=work)


def _from_thresholds(load: Floats, held: Places, enough: float) -> Places:
    """Under strong skew: hot experts get replicas enough for some share of a mean GPU, the rest by the greedy rule."""
    mean = load.sum() / len(held)
    best, highest = held, gpu_loads(load, held).max()
    if load.max() <= mean:
        return held
    for threshold in np.linspace(1.0, 0.4, _THRESHOLDS) * highest:
        counts = np.maximum(1, np.ceil(load / threshold)).astype(np.int64)
        if counts.sum() > held.size:
            break
        while counts.sum() < held.size:
            counts[np.argmax(load / counts)] += 1
        trial = swapped(load, packed(load, counts, len(held)), enough)
        if (reached := gpu_loads(load, trial).max()) < highest:
            best, highest = trial, reached
    return exchanged(load, best, enough) if best is not held else held


def _solve_parts(load: Floats, found: Balanced, effort: Effort, enough: float) -> Balanced:
    """Large-neighbourhood search: the fullest GPU and a few others, placed anew; more of them where that was easy."""
    rng = np.random.default_rng(SEED)
    held, size, stale, work = found.held, 3, 0, 0.0
    while work < effort.limit and stale < _STALE:
        total = gpu_loads(load, held)
        if total.max() <= enough:
            break
        chosen = neighbourhood(total, min(size, len(held)), rng)
        part = effort.part(min(_ROUND, effort.limit - work) / effort.limit)
        solved = solve_gpus(load, held, chosen, part)
        work += max(solved.work, 1e-3)
        if gpu_loads(load, solved.held).max() < total.max() * (1 - 1e-9):
            held, stale = solved.held, 0
            continue
        # several GPUs may be as full: the next round takes another of them
        gain = gpu_loads(load, solved.held)[chosen].max() < total.max() * (1 - 1e-9)
        held, stale = (solved.held, stale) if gain else (held, stale + 1)
        size += 1 if solved.status == "OPTIMAL" else -1
        size = max(2, size)
    return _balanced(load, held, found.bound, work)


def neighbourhood(total: Floats, size: int, rng: np.random.Generator) -> list[int]:
    """The fullest GPU, the emptiest ones and random ones; total: load of each GPU."""
    order = np.argsort(-total, kind="stable").tolist()
    some = order[:1] + order[len(order) - (size - 1) // 2 :]
    others = [gpu for gpu in order if gpu not in some]
    return sorted(some + rng.permutation(others)[: size - len(some)].tolist())
