"""Bounds on the highest GPU load, whatever the number of replicas of each expert.

Four that hold for every placement: the mean; the largest share where every replica goes to what is largest;
pigeonholes: under a highest load T a GPU holds at most k replicas above T/(k+1), so only so many may be that large;
company: slots are full, so that the k largest replicas are on at most k GPUs with others in the rest of the slots.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_HALVINGS = 60


def load_bound(load: Floats, gpus: int, slots: int) -> float:
    """No placement of `load` ([experts]) on gpus · slots slots has a lower highest load."""
    low, high = float(load.sum() / gpus), float(load.sum())
    if _possible(load, gpus, slots, low):
        return low
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _possible(load, gpus, slots, middle) else (middle, high)
    return low


def _possible(load: Floats, gpus: int, slots: int, highest: float) -> bool:
    """Whether none of the four forbids a placement with this highest load."""
    need = np.maximum(1, np.ceil(load / highest * (1 - 1e-12)))
    if need.sum() > gpus * slots:
        return False
    if not _company_fits(load, need, gpus, slots, highest):
        return False
    return all(
        _fewest_large(load, need, gpus * slots, highest / (among + 1)) <= among * gpus for among in range(1, slots)
    )


def _fewest_large(load: Floats, need: Floats, replicas: int, size: float) -> int:
    """The fewest replicas above `size`: experts are cut below it, the cheapest first, as far as the slots reach.

    An expert that is not cut has at least `need` replicas above it. A fraction of a cut is allowed, which only lowers
    the number.
    """
    large = load / need > size * (1 + 1e-12)
    spare = replicas - float(need.sum())
    cut = np.ceil(load[large] / size * (1 - 1e-12)) - need[large]
    saved = need[large]
    order = np.argsort(cut / saved, kind="stable")
    left = spare - np.concatenate([[0.0], np.cumsum(cut[order])])[:-1]
    part = np.clip(left / np.maximum(cut[order], 1e-300), 0.0, 1.0)
    return int(np.ceil(float(saved.sum() - (part * saved[order]).sum()) - 1e-9))


def _company_fits(load: Floats, need: Floats, gpus: int, slots: int, highest: float) -> bool:
    """Whether the k largest and the k · (slots - 1) smallest replicas go on k GPUs, for every k.

    At most `spare` experts have more replicas than they need. Wherever these are, the others' shares are known: the
    largest without the `spare` largest experts', and the smallest, of which as many are missing as those may have.
    """
    spare = int(gpus * slots - need.sum())
    falling = np.argsort(-load / need, kind="stable")
    share, times = (load / need)[falling], need[falling].astype(np.int64)
    top = np.concatenate([[0.0], np.cumsum(np.repeat(share[spare:], times[spare:]))])
    low = np.concatenate([[0.0], np.cumsum(np.repeat(share, times)[::-1])])
    missing = spare + int(np.sort(times)[::-1][:spare].sum())
    groups = np.arange(1, gpus + 1)
    large = top[np.minimum(groups, len(top) - 1)]
    small = low[np.clip(groups * (slots - 1) - missing, 0, len(low) - 1)]
    return bool((large + small <= groups * highest * (1 + 1e-12)).all())
