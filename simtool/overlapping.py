"""Which overlap is worth it for one step of a plan: each stock Overlap simulated on the same batch."""

from __future__ import annotations

from collections.abc import Sequence

from simtool.errors import InputError
from simtool.explaining import pool_of
from simtool.hardware.own_cluster import own_cluster
from simtool.models.config import load_architecture
from simtool.overlaps import STOCK
from simtool.plan import Plan
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.overlap.step import OverlappedStep, overlapped_step
from simtool.simulator.priced_cluster import priced_cluster


def compare_overlaps(
    plan: Plan, batch: str, pool: int = 0, names: Sequence[str] = tuple(STOCK)
) -> dict[str, OverlappedStep]:
    """Name → the layers of one step under that stock Overlap, "none" first.

    batch: see `parse_batch`. Raises InputError for an unknown name, pool or batch.
    """
    chosen = pool_of(plan, pool)
    for name in names:
        if name not in STOCK:
            raise InputError(name, "is no overlap", "one of " + ", ".join(STOCK))
    step = parse_batch(batch)
    hardware, _ = priced_cluster(own_cluster(plan.cluster, plan.profiles), plan.kernel_library, plan.profiles)
    arch = load_architecture(plan.model, plan.weight_dtype)
    return {
        name: overlapped_step(arch, chosen, hardware, step, STOCK[name]) for name in dict.fromkeys(("none", *names))
    }
