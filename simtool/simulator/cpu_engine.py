"""What an engine does differently where its devices are CPU processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simtool.hardware.device import Device
from simtool.plan import Overlap, Pool, Scheduler


def scheduler_on(scheduler: Scheduler, devices: Sequence[Device]) -> Scheduler:
    """The scheduler as it runs on `devices`. A CPU captures no graphs, and prepares no step while another computes: its
    scheduler and its kernels share a core.
    """
    if all(device.kind != "cpu" for device in devices):
        return scheduler
    return replace(scheduler, cuda_graphs=False, async_scheduling=False)


def pool_on(pool: Pool, devices: Sequence[Device]) -> Pool:
    """The pool as its devices run it: with their scheduler, and on a CPU one kernel at a time."""
    if all(device.kind != "cpu" for device in devices):
        return pool
    return replace(pool, scheduler=scheduler_on(pool.scheduler, devices), overlap=Overlap())
