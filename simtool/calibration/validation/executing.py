"""The one place where validation runs a plan for real, and where it writes what it fitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simtool.calibration.engine_times import with_host_times
from simtool.calibration.executor.execute import execute
from simtool.calibration.executor.execution import Execution
from simtool.calibration.executor.request import ExecuteRequest
from simtool.hardware.kernel_profile import HostTime
from simtool.plan import Plan
from simtool.validation import HostFit
from simtool.workload import Workload


def executed(plan: Plan, workload: Workload, request: ExecuteRequest) -> Execution:
    """The plan, run on this machine."""
    return execute(plan, workload, request)


def write_host_times(plan: Plan, fit: HostFit, folder: Path, number: int = 0) -> Path:
    """The plan's first own profile with the fitted host times, in `folder` under its own name.

    number: of the plan where there are several, which keeps the files of plans with one profile apart (0: one plan).
    """
    told = f"fitted on {fit.fitted_steps} measured steps ({fit.half})"
    times: Sequence[HostTime] = [
        HostTime(name=name, seconds=seconds, spread=0.0, source=told)
        for name, seconds in (("step_base", fit.base_s), ("step_per_request", fit.per_request_s), ("gap", fit.gap_s))
    ]
    profile = Path(plan.profiles[0].path)
    name = f"{profile.stem}-{number}{profile.suffix}" if number else profile.name
    if name == "validation.json":  # which says what was found
        name = "validation-profile.json"
    return with_host_times(profile, times, folder / name)
