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
_KICKS, _STALE = 200, 60  # rounds in all, and without gain


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
    single = np.arange(held.shape[1])[:, None]
    pairs = np.array(list(combinations(range(held.shape[1]), 2)), np.int64).reshape(-1, 2)
    while True:
        total = share[held].sum(axis=1)
        if total.max() <= enough or not (_swap(share, held, total, single) or _swap(share, held, total, pairs)):
            return held


def kicked(load: Floats, held: Places, enough: float, rng: np.random.Generator) -> Places:
    """`held` after rounds of a few random gifts followed by exchanges; a round that makes it no worse is kept."""
    best, highest, stale = held, gpu_loads(load, held).max(), 0
    for number in range(_KICKS):
        if highest <= enough or stale == _STALE:
            break
        trial = exchanged(load, _given_at_random(load, best, 1 + number % 3, rng), enough)
        reached = gpu_loads(load, trial).max()
        stale = 0 if reached < highest * (1 - 1e-9) else stale + 1
        if reached <= highest:
            best, highest = trial, reached
    return best


def _given_at_random(load: Floats, held: Places, gifts: int, rng: np.random.Generator) -> Places:
    """`held` with some replicas given to other experts, most likely to those with a large share."""
    held = held.copy()
    for _ in range(gifts):
        share = _shares(load, held)
        spare = np.argwhere(np.bincount(held.ravel(), minlength=len(load))[held] > 1)
        if not len(spare):
            break
        gpu, slot = spare[rng.integers(len(spare))]
        held[gpu, slot] = rng.choice(len(load), p=share / share.sum())
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
    order = np.argsort(weight, axis=1)
    ranked = np.take_along_axis(weight, order, axis=1)
    # the replicas that even both GPUs out most weigh less by half their difference
    wanted = weight[full] - (total[full] - total)[:, None] / 2
    place = _nearest(ranked, wanted)
    moved = weight[full] - np.take_along_axis(ranked, place, axis=1)
    higher = np.maximum(total[full] - moved, total[:, None] + moved)
    higher[full] = np.inf
    gpu, mine = np.unravel_index(int(higher.argmin()), higher.shape)
    if higher[gpu, mine] >= total[full] * (1 - _CLOSE):
        return False
    ours, others = sets[mine], sets[order[gpu, place[gpu, mine]]]
    held[full, ours], held[gpu, others] = held[gpu, others].copy(), held[full, ours].copy()
    return True


def _nearest(ranked: Floats, wanted: Floats) -> Places:
    """For each row of `wanted`, the places of the nearest values in the same row of `ranked`, whose rows rise."""
    rows, columns = ranked.shape
    step = 2.0 * max(float(np.abs(ranked).max()), float(np.abs(wanted).max())) or 1.0  # puts rows one after the other
    shift = step * np.arange(rows)[:, None]
    at = np.searchsorted((ranked + shift).ravel(), (wanted + shift).ravel()).reshape(wanted.shape)
    above = np.clip(at - columns * np.arange(rows)[:, None], 0, columns - 1)
    below = np.maximum(above - 1, 0)
    far = np.abs(np.take_along_axis(ranked, above, axis=1) - wanted)
    nearer = np.abs(np.take_along_axis(ranked, below, axis=1) - wanted) < far
    return np.asarray(np.where(nearer, below, above))


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
