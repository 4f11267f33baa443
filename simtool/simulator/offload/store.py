"""OffloadStore: objects that move (experts, whole layers, other segments) and the rooms of three tiers for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

_MOST_BYTES = 2**50


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadStore:
    """n objects of some layers. A layer is one visit of a step: an MoE layer's experts, or one dense segment.

    object_layer: int64[n], ascending, each layer with at least one object. object_bytes: int64[n].
    pool: int64[layers], the HBM pool of each layer; layers may share one. pool_bytes: int64[pools], its room.
    staging_bytes: HBM for objects on their way, shared by all layers.
    host_bytes: host memory; None holds all objects, else the others are on an SSD and are read into host memory first.
    """

    object_layer: NDArray[np.int64]
    object_bytes: NDArray[np.int64]
    pool: NDArray[np.int64]
    pool_bytes: NDArray[np.int64]
    staging_bytes: int = 0
    host_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raise InputError for objects and pools that do not fit each other."""
        layers = len(self.pool)
        steps = np.diff(self.object_layer, prepend=-1, append=layers)
        if not layers or (steps < 0).any() or (steps > 1).any() or steps[0] != 1 or steps[-1] != 1:
            raise InputError("object_layer", "must name the layers 0, 1, … in order, each at least once")
        if len(self.object_bytes) != len(self.object_layer) or not in_range(self.object_bytes, 1):
            raise InputError("object_bytes", f"must be from 1 to {_MOST_BYTES}, one for each object")
        if self.pool.min() < 0 or self.pool.max() >= len(self.pool_bytes) or not in_range(self.pool_bytes, 0):
            raise InputError("pool", f"must name pools, whose bytes are from 0 to {_MOST_BYTES}")
        if self.staging_bytes < 0 or (self.host_bytes is not None and self.host_bytes < 0):
            raise InputError("staging_bytes, host_bytes", "must be at least 0")

    @property
    def layers(self) -> int:
        """Visits of a step."""
        return len(self.pool)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Int64[layers + 1]: the first object of each layer, and n."""
        return np.searchsorted(self.object_layer, np.arange(self.layers + 1))

    @property
    def hbm_bytes(self) -> int:
        """Room of all pools and of staging."""
        return int(self.pool_bytes.sum()) + self.staging_bytes


def in_range(values: NDArray[np.int64], least: int) -> bool:
    """Whether all are sizes that sums of int64 bear."""
    return bool(len(values)) and int(values.min()) >= least and int(values.max()) <= _MOST_BYTES


def expert_store(
    layers: int,
    experts: int,
    expert_bytes: int,
    slots: int | Sequence[int],
    *,
    shared: bool = False,
    staging: int = 0,
    host: int | None = None,
) -> OffloadStore:
    """A store of equal experts, rooms counted in experts.

    slots: of each layer (one number: the same for all); shared: that many together, for all layers.
    staging: slots for experts on their way; host: experts that host memory holds (None: all).
    """
    if min(layers, experts) < 1:
        raise InputError(f"{layers} x {experts}", "at least one layer and one expert")
    held = [int(slots)] if isinstance(slots, (int, np.integer)) else [int(count) for count in slots]
    if not shared and len(held) == 1:
        held = held * layers
    if len(held) != (1 if shared else layers):
        raise InputError(held, "slots are one number, or one for each layer")
    return OffloadStore(
        object_layer=np.repeat(np.arange(layers), experts),
        object_bytes=np.full(layers * experts, expert_bytes, np.int64),
        pool=np.zeros(layers, np.int64) if shared else np.arange(layers),
        pool_bytes=np.array(held, np.int64) * expert_bytes,
        staging_bytes=staging * expert_bytes,
        host_bytes=None if host is None else host * expert_bytes,
    )


def light_store(layers: int, experts: int, expert_bytes: int, light_bytes: int, pool_bytes: int) -> OffloadStore:
    """Each layer has its experts and behind them a light copy of each, and `pool_bytes` of HBM for both."""
    if min(layers, experts) < 1:
        raise InputError(f"{layers} x {experts}", "at least one layer and one expert")
    return OffloadStore(
        object_layer=np.repeat(np.arange(layers), 2 * experts),
        object_bytes=np.tile(np.repeat(np.array([expert_bytes, light_bytes], np.int64), experts), layers),
        pool=np.arange(layers),
        pool_bytes=np.full(layers, pool_bytes, np.int64),
    )


def layer_store(layer_bytes: Sequence[int], staging_bytes: int) -> OffloadStore:
    """Whole layers that pass through `staging_bytes` of HBM, all of them in host memory."""
    count = len(layer_bytes)
    return OffloadStore(
        object_layer=np.arange(count),
        object_bytes=np.array(layer_bytes, np.int64),
        pool=np.zeros(count, np.int64),
        pool_bytes=np.zeros(1, np.int64),
        staging_bytes=staging_bytes,
    )
