"""Experts that see only the tokens that an all-to-all sent them, priced from tables of kernels that see all tokens.

Of two kernels of the tables each bounds it. Without expert parallelism, a mixture as large as what the device holds, of
the tokens that reach it: the same work, but such small mixtures were not measured, so the nearest measured one lends
its efficiency. With expert parallelism: the very experts, and skipping what other devices hold on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.cost import Cost, merged
from simtool.models.operators import Operator

Array = NDArray[np.float64]
Dims = Mapping[str, Array]

# What AIConfigurator's tables hold without expert parallelism: from Mixtral's 8 experts, of which a token takes 2,
# up to 16,384 tokens and 4,096 rows an expert.
FEWEST_EXPERTS, FEWEST_CHOSEN, MOST_TOKENS, MOST_ROWS = 8.0, 2.0, 16_384.0, 4_096.0


def gathered_experts(operator: Operator) -> Operator:
    """The same experts where every device sees all tokens."""
    return replace(operator, dims={name: dim for name, dim in operator.dims.items() if name != "received"})


def local_experts(operator: Operator) -> Operator:
    """The same experts as a mixture of their own, of the tokens that arrive, each with its mean of local experts."""
    dims, share, ep = operator.dims, operator.dims["received"], operator.dims["moe_ep"]
    local = {"tokens": dims["tokens"] * share, "top_k": dims["top_k"] / ep / share}
    local |= {"num_experts": dims["num_experts"] / ep, "moe_ep": np.ones_like(ep)}
    return replace(operator, dims={**dims, **local})


def nearest_mixture(dims: Dims) -> Dims:
    """The dims whose residual a mixture takes: its own, or of `local_experts` the nearest measured mixture's.

    That has as many rows an expert. Few experts were measured among skipped ones only, whose cost a residual includes.
    """
    if "received" not in dims:
        return dims
    experts = np.maximum(dims["num_experts"], FEWEST_EXPERTS)
    rows = experts * np.minimum(dims["tokens"] * dims["top_k"] / dims["num_experts"], MOST_ROWS)
    chosen = np.minimum(np.maximum(np.maximum(dims["top_k"], FEWEST_CHOSEN), rows / MOST_TOKENS), experts)
    return {**dims, "tokens": rows / chosen, "top_k": chosen, "num_experts": experts}


def octaves_beyond(dims: Dims) -> Array:
    """How far a mixture is from the one whose residual it takes, [b]: too few experts, or too many rows each."""
    if "received" not in dims:
        return np.zeros(1)
    rows = np.maximum(dims["tokens"] * dims["top_k"] / dims["num_experts"], 1e-3)
    few, many = np.log2(FEWEST_EXPERTS / dims["num_experts"]), np.log2(rows / MOST_ROWS)
    return np.maximum(np.maximum(few, many), 0.0)


def cheaper(first: Cost, second: Cost) -> Cost:
    """Of two upper bounds of one kernel the lower one, entry by entry."""
    other = second.seconds < first.seconds
    return merged([(~other, first), (other, second)])
