"""Uniform routing: what a token's choice of top_k experts reaches, in expectation."""

from __future__ import annotations

from math import comb

import numpy as np

from simtool.models.architecture import MoeMlp
from simtool.models.operators import Array


def touched_experts(mlp: MoeMlp, tokens: Array) -> Array:
    """Distinct experts that `tokens` [b] activate: E(1 - (1 - k/E)^T), [b]."""
    missed = np.power(1.0 - mlp.top_k / mlp.num_experts, tokens)
    return mlp.num_experts * (1.0 - missed)


def reached_share(mlp: MoeMlp, parts: int) -> float:
    """Chance that a token chooses an expert of one of `parts` equal parts (devices, nodes) that hold them in order.

    Its top_k distinct experts are drawn from topk_groups of num_groups groups (DeepSeek-V3, arXiv 2412.19437, section
    2.1.2: node-limited routing). Parts that neither hold whole groups nor lie inside one are taken as ungrouped.
    """
    groups, chosen, each = mlp.num_groups, mlp.topk_groups, mlp.num_experts / parts
    if groups <= chosen or (groups % parts and parts % groups):
        return 1.0 - _missed(mlp.num_experts, each, mlp.top_k)
    pool, held = chosen * mlp.num_experts / groups, max(1, groups // parts)
    within = min(each, mlp.num_experts / groups)  # experts of the part in a group that it holds
    return sum(
        comb(held, part)
        * comb(groups - held, chosen - part)
        / comb(groups, chosen)
        * (1.0 - _missed(pool, part * within, mlp.top_k))
        for part in range(1, min(held, chosen) + 1)
    )


def _missed(pool: float, part: float, top_k: int) -> float:
    """Chance that top_k distinct draws from `pool` experts miss all `part` of them."""
    missed = 1.0
    for drawn in range(top_k):
        missed *= max(0.0, pool - part - drawn) / (pool - drawn)
    return missed
