"""Routing: how many tokens each expert gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.fitted_work import ROUTING, ROUTING_TOP_SHARE

ROUTINGS = (ROUTING, "balanced", "zipf_1.0")


def expert_loads(tokens: int, top_k: int, experts: int, routing: str) -> NDArray[np.int64]:
    """Assignments of each expert, [experts], largest first: together tokens x top_k, at most `tokens` an expert.

    ROUTING: log-uniform loads between 1 and 0.8 x tokens, scaled (as fitted_work states). zipf_1.0: load of the r-th
    expert as 1/r.
    """
    quantile = (np.arange(experts)[::-1] + 0.5) / experts
    if routing == ROUTING:
        shape = np.exp(quantile * np.log(max(ROUTING_TOP_SHARE * tokens, 1.0)))
    elif routing == "zipf_1.0":
        shape = 1.0 / np.arange(1, experts + 1)
    else:
        assert routing == "balanced", routing
        shape = np.ones(experts)
    return _whole(_capped(shape * tokens * top_k / shape.sum(), float(tokens)), tokens * top_k, tokens)


def local_loads(loads: NDArray[np.int64], ranks: int) -> NDArray[np.int64]:
    """Loads of one of `ranks` expert-parallel ranks: every ranks-th expert from the middle of the first group.

    At least one row, as the cost model assumes: a rank without any has nothing to time.
    """
    own = loads[ranks // 2 :: ranks].copy()
    own[0] = max(own[0], 1)
    return own


def _capped(loads: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """No load above `most`; what is cut goes to the others in proportion. The sum stays (it is at most most x n)."""
    total = loads.sum()
    for _ in range(len(loads)):
        over = loads >= most
        if over.all() or not (loads > most).any():
            break
        loads = np.where(over, most, loads)
        loads = np.where(over, most, loads * (total - most * over.sum()) / loads[~over].sum())
    return np.minimum(loads, most)


def _whole(loads: NDArray[np.float64], total: int, most: int) -> NDArray[np.int64]:
    """Whole numbers of the same sum: rounded, then one at a time where the rounding left most."""
    whole = np.minimum(np.floor(loads + 0.5), most).astype(np.int64)
    while (gap := total - int(whole.sum())) != 0:
        room = whole < most if gap > 0 else whole > 0
        order = np.argsort((whole - loads) * np.sign(gap), kind="stable")
        some = order[room[order]][: abs(gap)]
        whole[some] += int(np.sign(gap))
    return whole
