"""Which overlap is worth it for one step of a plan: each stock Overlap on the same batch, or a schedule solved for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simtool.errors import InputError
from simtool.explaining import pool_of
from simtool.files import check_output_file
from simtool.hardware.own_cluster import own_cluster
from simtool.models.config import load_architecture
from simtool.overlaps import STOCK
from simtool.plan import Plan, Pool
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.overlap.step import OverlappedStep, overlapped_step
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.step_costs import StageHardware
from simtool.step_schedule import save_schedule

if TYPE_CHECKING:
    from simtool.models.architecture import ModelArchitecture
    from simtool.planners.schedule.step_plan import SolvedStep


def compare_overlaps(
    plan: Plan, batch: str, pool: int = 0, names: Sequence[str] = tuple(STOCK)
) -> dict[str, OverlappedStep]:
    """Name → the layers of one step under that stock Overlap, "none" first.

    batch: see `parse_batch`. Raises InputError for an unknown name, pool or batch.
    """
    for name in names:
        if name not in STOCK:
            raise InputError(name, "is no overlap", "one of " + ", ".join(STOCK))
    step, (arch, chosen, hardware) = parse_batch(batch), _priced(plan, pool)
    return {
        name: overlapped_step(arch, chosen, hardware, step, STOCK[name]) for name in dict.fromkeys(("none", *names))
    }


def solve_overlap(plan: Plan, batch: str, pool: int = 0, seconds: float = 30.0) -> SolvedStep:
    """A schedule of its own for each kind of layer of one step, with a bound on what any could reach.

    seconds: of search a kind of layer on two cores, shared by its numbers of nano-batches. Errors: `compare_overlaps`.
    """
    from simtool.planners.schedule.progress import Effort
    from simtool.planners.schedule.step_plan import NANO_BATCHES, solve_step

    check_seconds(seconds)
    step, (arch, chosen, hardware) = parse_batch(batch), _priced(plan, pool)
    each = seconds / len(NANO_BATCHES)
    return solve_step(arch, chosen, hardware, step, Effort(limit=each, workers=2, wall_s=each))


def check_schedule_output(path: Path, *, solve: bool) -> None:
    """Raise InputError unless a solved schedule can be written there."""
    if not solve:
        raise InputError("--schedule", "writes what a solver found", "give --solve too")
    check_output_file(path)


def write_schedule(solved: SolvedStep, plan: Plan, batch: str, pool: int, path: Path) -> None:
    """Write it for `simtool execute --schedule`. InputError where layers are cut in unlike numbers of nano-batches."""
    from simtool.planners.schedule.launches import step_schedule

    save_schedule(step_schedule(solved, plan.model, batch, pool_of(plan, pool).parallel), path)


def check_seconds(seconds: float) -> None:
    """Raise InputError unless one can search for so long."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"{seconds:g} seconds of search", "must be a number above 0", "--seconds 30")


def _priced(plan: Plan, pool: int) -> tuple[ModelArchitecture, Pool, Mapping[str, StageHardware]]:
    chosen = pool_of(plan, pool)
    hardware, _ = priced_cluster(own_cluster(plan.cluster, plan.profiles), plan.kernel_library, plan.profiles)
    return load_architecture(plan.model, plan.weight_dtype), chosen, hardware
