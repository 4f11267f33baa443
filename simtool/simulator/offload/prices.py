"""Prices: seconds of a walk's parts, as the caller reckons them; the walk knows no hardware."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

F8 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Seconds. Dimensions of size 1 hold for all.

    dense_s: [steps or 1, layers] what a layer computes before it knows its objects (attention, norms, router).
    expert_s: [layers or 1, t + 1] one object with 0..t tokens, on the device; more tokens go on at the last slope.
    load_s: [n] one object's way from host memory to HBM, alone on the link. read_s: [n] from the SSD to host memory.
    cpu_s: as expert_s, on the CPU. cpu_sync_s: added to a layer that has any object on the CPU.
    step_s: [steps or 1] before the first layer (embedding, head, sampling, the engine).
    """

    dense_s: F8
    expert_s: F8
    load_s: F8
    read_s: F8 | None = None
    cpu_s: F8 | None = None
    cpu_sync_s: float = 0.0
    step_s: F8 | float = 0.0

    def __post_init__(self) -> None:
        """Raise InputError for what is no number of seconds."""
        for name in ("dense_s", "expert_s", "load_s", "read_s", "cpu_s", "cpu_sync_s", "step_s"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value).all() and np.min(value, initial=0.0) >= 0.0):
                raise InputError(name, "must be finite and at least 0")


def by_tokens(first_s: float, token_s: float) -> F8:
    """[1, 2] a line for every layer: `first_s` for an object at all, `token_s` more for each token."""
    return np.array([[first_s, first_s + token_s]])
