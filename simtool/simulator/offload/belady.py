"""Belady's bound: the most reuse that any rule of eviction can have, with any prefetching."""

from __future__ import annotations

import heapq

import numpy as np

from simtool.errors import InputError
from simtool.simulator.jit import jit_entry
from simtool.simulator.offload.needs import I8, Needs, next_visits
from simtool.simulator.offload.store import OffloadStore


def fewest_loads(store: OffloadStore, needs: Needs) -> int:
    """No walk from empty pools loads fewer objects (or computes them elsewhere) than this.

    Between two needs of an object it is held throughout, or loaded again. Of those that a pool could hold over a visit
    those needed soonest are held (Belady 1966; with bypassing, so that policies with staging are bounded too: staging
    counts as room of every pool). Raises InputError for objects of unequal size, for which there is no such rule.
    """
    size = int(store.object_bytes[0])
    if (store.object_bytes != size).any():
        raise InputError("object_bytes", "must be the same for Belady's bound")
    slots = (store.pool_bytes + store.staging_bytes) // size
    following = next_visits(needs, len(store.object_layer))
    kept = kept_needs(needs.starts, needs.objects, following, store.pool, slots, len(store.object_layer))
    return len(needs.objects) - int(kept)


@jit_entry
def kept_needs(starts: I8, objects: I8, following: I8, layer_pool: I8, slots: I8, count: int) -> int:
    """Needs that find their object held since the need before."""
    next_visit = np.full(count, -1, np.int64)  # of the objects held
    kept, layers = 0, len(layer_pool)
    for pool in range(len(slots)):
        held = 0
        farthest = [(0, 0)]  # a heap of (-next visit, object); what is no longer so is passed over
        farthest.pop()
        for visit in range(len(starts) - 1):
            if layer_pool[visit % layers] != pool:
                continue
            for need in range(starts[visit], starts[visit + 1]):
                item = objects[need]
                if next_visit[item] == visit:
                    kept += 1
                else:
                    held += 1
                next_visit[item] = following[need]
                heapq.heappush(farthest, (-following[need], item))
            while held > slots[pool]:
                far, item = heapq.heappop(farthest)
                if next_visit[item] == -far:
                    next_visit[item] = -1
                    held -= 1
    return kept
