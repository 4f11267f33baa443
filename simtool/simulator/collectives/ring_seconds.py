"""Seconds of an all-reduce in a ring of peers, each ring simulated once."""

from __future__ import annotations

from collections.abc import Callable

from simtool.hardware.routes import Router
from simtool.simulator.collectives.collective import Collective, simulate_collective


def ring_seconds(router: Router, size: float) -> Callable[[tuple[int, ...]], float]:
    """Ring (ranks in order) → seconds of the all-reduce of `size` bytes, on a topology that does not change."""
    known: dict[tuple[int, ...], float] = {}

    def seconds(ring: tuple[int, ...]) -> float:
        if ring not in known:
            known[ring] = simulate_collective(router, Collective(kind="all_reduce", size=size, ranks=ring)).makespan_s
        return known[ring]

    return seconds
