"""Place and split: which objects are in HBM at the start, and how many slots each layer gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

I8 = NDArray[np.int64]
Bools = NDArray[np.bool_]


def random_experts(layers: int, experts: int, slots: int | Sequence[int], rng: np.random.Generator) -> Bools:
    """bool[layers * experts]: as many of each layer as it has slots, chosen at random."""
    return used_most(rng.random((layers, experts)), slots)


def used_most(uses: NDArray[np.floating] | I8, slots: int | Sequence[int]) -> Bools:
    """bool[layers * experts]: of each layer those with the most uses [layers, experts], equal ones by number."""
    layers, experts = uses.shape
    held = np.broadcast_to(np.asarray(slots), layers)
    if held.min() < 0 or held.max() > experts:
        raise InputError(slots, f"a layer has from 0 to {experts} slots for experts to be placed in")
    place = np.argsort(np.argsort(-uses, axis=1, kind="stable"), axis=1)
    return np.asarray(place < held[:, None]).ravel()


def split_slots(uses: NDArray[np.floating] | I8, total: int, *, least: int = 0) -> I8:
    """int64[layers]: `total` slots over layers so that a static placement of the most used experts hits most.

    uses: [layers, experts]. Every layer gets `least`; the rest go to the most used experts that have none. Raises
    InputError for more slots than experts, or fewer than `least` for each layer.
    """
    layers, experts = uses.shape
    if not layers * least <= total <= layers * experts or least > experts:
        raise InputError(total, f"slots must be from {layers * least} to {layers * experts}")
    rest = np.sort(uses.astype(np.float64), axis=1)[:, ::-1]
    rest[:, :least] = np.inf
    first = np.argsort(-rest, axis=None, kind="stable")[:total]
    return np.bincount(first // experts, minlength=layers).astype(np.int64)
