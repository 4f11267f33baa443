"""Modules of unlike size in a store: each module of a layer is a visit of its own, with its own bytes and prices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.simulator.offload.needs import Needs, expert_needs
from simtool.simulator.offload.store import OffloadStore


def module_store(layers: int, module_bytes: Sequence[int], room_bytes: int, *, staging_bytes: int = 0) -> OffloadStore:
    """`layers` times the same modules, one pool of `room_bytes` for all. Visit and object: layer * modules + module."""
    count = layers * len(module_bytes)
    return OffloadStore(
        object_layer=np.arange(count),
        object_bytes=np.tile(np.array(module_bytes, np.int64), layers),
        pool=np.zeros(count, np.int64),
        pool_bytes=np.array([room_bytes], np.int64),
        staging_bytes=staging_bytes,
    )


def module_needs(choice: NDArray[np.int16], step: NDArray[np.integer], modules: int) -> Needs:
    """Needs of a `module_store`; choice: int16[tokens, layers], each token's module, -1 for none. step: [tokens]."""
    chosen = choice[:, :, None] == np.arange(modules)
    flat = np.where(chosen, 0, -1).astype(np.int16).reshape(len(choice), -1, 1)
    return expert_needs(flat, step, 1)
