"""How many needs cost no load: the most that any policy reaches, and what policies reach by slots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.plan import ExpertOffload
from simtool.planners.offload.case import PINNED, OffloadCase
from simtool.simulator.offload.belady import kept_needs
from simtool.simulator.offload.needs import Needs, next_visits
from simtool.simulator.offload.served import policy_of
from simtool.simulator.offload.store import expert_store
from simtool.simulator.offload.walk import COUNTS, walk

I8 = NDArray[np.int64]
F8 = NDArray[np.float64]
_POINTS = 16  # of a curve that is walked


def most_kept(needs: Needs, objects: int, slots: int) -> int:
    """Needs that find their object in HBM since the need before, or since the start, at most.

    One pool of `slots` for all layers, whose first contents are free (a plan may preload what it likes) and chosen with
    the whole future known. A split pool, staging, prefetches and any eviction hold no more (Belady 1966; of intervals
    between needs, as many as overlap at most `slots` times).
    """
    every = np.arange(objects)
    head = np.searchsorted(every, np.arange(1, needs.layers + 1) * (objects // needs.layers))
    starts = np.concatenate([[0], head, needs.starts[1:] + objects])
    warm = Needs(
        starts=starts,
        objects=np.concatenate([every, needs.objects]),
        tokens=np.concatenate([np.ones(objects, np.int64), needs.tokens]),
        layers=needs.layers,
    )
    following = next_visits(warm, objects)
    pool = np.zeros(needs.layers, np.int64)
    return int(kept_needs(warm.starts, warm.objects, following, pool, np.array([slots]), objects))


def most_pinned(needs: Needs, objects: int, slots: int) -> int:
    """Needs of the `slots` most needed objects: no fixed set of so many is needed more often."""
    counts = np.sort(np.bincount(needs.objects, minlength=objects))[::-1]
    return int(counts[:slots].sum())


def expected_uses(uses: I8, top_k: int, batch: int) -> F8:
    """[layers, experts]: chance that a step of `batch` independent tokens needs each expert, from counts of tokens."""
    share = top_k * uses / np.maximum(uses.sum(axis=1, keepdims=True), 1)
    return np.asarray(1.0 - (1.0 - np.minimum(share, 1.0)) ** batch)


def curve_slots(experts: int, least: int) -> list[int]:
    """Numbers of slots of a layer at which a curve is walked, dense where it is steep."""
    spread = np.geomspace(1, experts, min(_POINTS, experts))
    return sorted({least, experts, *np.round(spread).astype(int).tolist()} - set(range(least)))


def walked_curve(case: OffloadCase, way: ExpertOffload, slots: list[int]) -> F8:
    """[layers, len(slots)]: needs less loads of each layer with so many slots each, under the way's policy.

    Decisions know no clock, so that these are exact for pools that layers do not share, whatever the prices.
    """
    guess = case.guesses.get((way.policy, way.window))
    needed, loads = COUNTS.index("needed"), COUNTS.index("loads")
    found = []
    for count in slots:
        store = expert_store(case.layers, case.experts, 1, count, staging=staging_of(case, way, count * case.layers))
        counts = walk(store, policy_of(way), case.needs, case.prices[way.policy], guess=guess).layer_counts
        found.append((counts[:, needed] - counts[:, loads]).astype(np.float64))
    return np.stack(found, axis=1)


def staging_of(case: OffloadCase, way: ExpertOffload, slots: int) -> int:
    """Places for experts on their way: for those of the window's layers, at most a quarter of what there is."""
    if way.policy in ("lru", "lfu", "predicted-path", "static-cpu"):
        return 0
    step = min(case.top_k * case.batch, case.experts)
    wanted = case.top_k if way.policy in PINNED else way.window * step
    return max(1, min(wanted, slots // 4))
