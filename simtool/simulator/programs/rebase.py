"""REBASE: how a width is shared among scored branches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError


def rebase_shares(scores: Sequence[float], width: int, temperature: float = 0.2) -> NDArray[np.int64]:
    """Children of each branch: ⌈W · e^{r_i / T} / Σ_j e^{r_j / T}⌉, as the ETS paper states REBASE (arXiv 2502.13575).

    Rounded up, so that they add up to the width or more and no branch gets none. scores: a reward model's.
    """
    rewards = np.asarray(scores, float)
    if rewards.ndim != 1 or not len(rewards) or not np.isfinite(rewards).all():
        raise InputError(list(scores), "scores are finite, one a branch, and at least one")
    if width < 1 or not temperature > 0.0:
        raise InputError((width, temperature), "a width is 1 or more, a temperature above 0")
    weight = np.exp((rewards - rewards.max()) / temperature)
    exact = width * weight / weight.sum()
    return np.asarray(np.maximum(1, np.ceil(exact - 1e-9 * width)), np.int64)  # a share that is whole, but for rounding
