"""Baseline: what a careful operator does by hand. Every search runs it first and is never worse than it."""

from __future__ import annotations

from collections.abc import Sequence

from simtool.planners.space import Proposal


def baseline(proposals: Sequence[Proposal]) -> int:
    """Index of the rule-of-thumb plan: the smallest tensor parallelism that fits, inside a node, no pipeline unless
    needed, experts spread where there are any, and replicas on all devices that are left; the largest token budget.
    """
    if not proposals:
        raise ValueError("no proposals")

    def preference(index: int) -> tuple[int, ...]:
        pool = proposals[index].plan.pools[0]
        p = pool.parallel
        return (p.pp, p.dp, p.tp, -p.ep, -pool.replicas, -pool.scheduler.max_num_batched_tokens, index)

    return min(range(len(proposals)), key=preference)
