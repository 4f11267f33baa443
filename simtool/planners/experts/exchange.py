"""Exchange: a placement made better by hand: swaps of two replicas, and a replica given from one expert to another.

`held` is [gpus, slots], the expert of each slot; an expert's load is split equally over its replicas.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
_CLOSE = 1e-12  # relative gain that counts as none
_TRIED = 8  # gifts of a replica that are followed up by swaps


def gpu_loads(load: Floats, held: Places) -> Floats:
    """Load of each GPU, [gpus]; load: [experts]."""
    return np.asarray(_shares(load, held)[held].sum(axis=1))


def exchanged(load: Floats, held: Places, enough: float = 0.0) -> Places:
    """`held` after the swaps and gifts that lower the highest GPU load, until none does or it is at most `enough`."""
    best = swapped(load, held, enough)
    while gpu_loads(load, best).max() > enough:
        found = _best_gift(load, best, enough)
        if found is None:
            break
        best = found
    return best


def swapped(load: Floats, held: Places, enough: float = 0.0) -> Places:
    """`held` after swaps of one or two replicas of the fullest GPU with as many of another, until none lowers it."""
    held, share = held.copy(), _shares(load, held)
    pairs = np.array(list(combinations(range(held.shape[1]), 2)), np.int64).reshape(-1, 2)
    while True:
        total = share[held].sum(axis=1)
        if total.max() <= enough or not (
            _swap(share, held, total, np.arange(held.shape[1])[:, None]) or _swap(share, held, total, pairs)
        ):
            return held


def packed(load: Floats, counts: Places, gpus: int) -> Places:
    """Replicas by falling share, each on the emptiest GPU with a slot free; counts: replicas of each expert."""
    slots = int(counts.sum()) // gpus
    held, filled, used = np.empty((gpus, slots), np.int64), np.zeros(gpus), np.zeros(gpus, np.int64)
    replicas = np.repeat(np.arange(len(load)), counts)
    share = (load / counts)[replicas]
    for replica in np.argsort(-share, kind="stable"):
        gpu = int(np.argmin(np.where(used < slots, filled, np.inf)))
        held[gpu, used[gpu]] = replicas[replica]
        filled[gpu] += share[replica]
        used[gpu] += 1
    return held


def _shares(load: Floats, held: Places) -> Floats:
    """Load of one replica of each expert."""
    return np.asarray(load / np.maximum(np.bincount(held.ravel(), minlength=len(load)), 1))


def _swap(share: Floats, held: Places, total: Floats, sets: Places) -> bool:
    """Make the best swap of a set of slots of the fullest GPU with one of another; sets: [sets, slots in one]."""
    if not len(sets):
        return False
    full = int(total.argmax())
    weight = share[held[:, sets]].sum(axis=2)  # gpus, sets
    weight_order = np.argsort(weight, axis=1)
    ranked = np.take_along_axis(weight, weight_order, axis=1)
    best, where = total[full] * (1 - _CLOSE), None
    for gpu in range(len(held)):
        if gpu == full:
            continue
        # the gain that evens both out most: half their difference
        wanted = weight[full] - (total[full] - total[gpu]) / 2
        at = np.searchsorted(ranked[gpu], wanted)
        for shift in (-1, 0):
            place = np.clip(at + shift, 0, ranked.shape[1] - 1)
            moved = weight[full] - ranked[gpu, place]
            higher = np.maximum(total[full] - moved, total[gpu] + moved)
            mine = int(higher.argmin())
            if higher[mine] < best:
                best, where = higher[mine], (sets[mine], gpu, sets[weight_order[gpu, place[mine]]])
    if where is None:
        return False
    mine_slots, gpu, other_slots = where
    held[full, mine_slots], held[gpu, other_slots] = held[gpu, other_slots].copy(), held[full, mine_slots].copy()
    return True


def _best_gift(load: Floats, held: Places, enough: float) -> Places | None:
    """`held` with one replica given to another expert and swapped, where that is better."""
    total = gpu_loads(load, held)
    limit = total.max() * (1 - _CLOSE)
    for gpu, slot, expert in _gifts(load, held, total):
        trial = held.copy()
        trial[gpu, slot] = expert
        trial = swapped(load, trial, enough)
        if gpu_loads(load, trial).max() < limit:
            return trial
    return None


def _gifts(load: Floats, held: Places, total: Floats) -> list[tuple[int, int, int]]:
    """The most promising (gpu, slot, expert that takes it), by the highest load right after."""
    counts = np.bincount(held.ravel(), minlength=len(load))
    on = np.zeros((len(load), len(held)))
    np.add.at(on, (held.ravel(), np.repeat(np.arange(len(held)), held.shape[1])), 1.0)
    gains = load / (counts + 1)
    after_gain = total + on * (gains - load / counts)[:, None]  # experts, gpus
    found: list[tuple[float, int, int, int]] = []
    for gpu, slot in np.argwhere(counts[held] > 1):
        giver = held[gpu, slot]
        less = load[giver] / (counts[giver] - 1)
        change = on[giver] * (less - load[giver] / counts[giver])
        change[gpu] -= less
        later = after_gain + change
        later[:, gpu] += gains
        highest = later.max(axis=1)
        highest[giver] = np.inf
        expert = int(highest.argmin())
        found.append((float(highest[expert]), int(gpu), int(slot), expert))
    return [row[1:] for row in sorted(found)[:_TRIED]]
