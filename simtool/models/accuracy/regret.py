"""Regret of a long answer: what its episodes left on the table (meta reinforcement, MRT)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError


def cumulative_regret(best: float | Sequence[float], reached: Sequence[float]) -> NDArray[np.float64]:
    """Σ_{i ≤ j} (J(π*_i) − J(prefix_i)) after each episode j (MRT, arXiv 2503.07572): float64[episodes].

    reached: chance of a right answer if it stopped after each episode. best: that of the best policy with the same
    budget, one for all or one an episode. InputError: a chance outside [0, 1], lengths that differ.
    """
    stopped = np.asarray(reached, float)
    optimal = np.asarray(best, float)
    if stopped.ndim != 1 or optimal.shape not in ((), stopped.shape):
        raise InputError(optimal.shape, "is one best chance, or one an episode", f"{len(stopped)} of them")
    if not (((stopped >= 0) & (stopped <= 1)).all() and ((optimal >= 0) & (optimal <= 1)).all()):
        raise InputError(list(reached), "chances are between 0 and 1")
    return np.cumsum(optimal - stopped)
