"""What `simtool calibrate` calls: measure and fit, fit points measured elsewhere, fit other people's measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from simtool.calibration.fit_profile import fit_set, profile_name, profile_table, refusals, write_profile
from simtool.calibration.importing import import_measurements
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.points_file import measured_set, read_journal
from simtool.calibration.profiling.request import ProfileRequest
from simtool.errors import InputError

Tell = Callable[[str], None]
JOURNAL = "points.jsonl"
MOST_REFUSALS_TOLD = 10


def calibrate(request: ProfileRequest, out: Path, *, tell: Tell, progress: Tell) -> Path | None:
    """Measure this machine into out/points.jsonl (going on with one that is there), fit, and write the profile.

    Returns the profile's path; None where Ctrl-C ended the measuring: the points are kept, the same call goes on.
    Needs torch; raises InputError where it is not installed.
    """
    try:
        import torch  # noqa: F401 - the session needs it, and says so less clearly

        from simtool.calibration.profiling.session import profile_machine
    except ModuleNotFoundError as error:
        hint = "pip install 'llm-simtool[gpu]', or measure elsewhere and run: simtool calibrate fit points.jsonl"
        raise InputError("calibrate", f"needs {error.name}, which is not installed", hint) from None
    out.mkdir(parents=True, exist_ok=True)
    measured = profile_machine(request, out / JOURNAL, tell=tell, progress=progress)
    if measured.machine.get("interrupted"):
        return None
    return write_fit(measured, out, seed=request.seed, tell=tell, command=f"simtool calibrate --seed {request.seed}")


def fit_points(journal: Path, out: Path, *, tell: Tell) -> Path:
    """Fit the points of a journal that was measured anywhere, with its own seed. Returns the profile's path."""
    found = read_journal(journal)
    if found.cut:
        tell(f"{journal}: the last line was cut, and is left out")
    return write_fit(measured_set(found), out, seed=found.header.seed, tell=tell, command="simtool calibrate fit")


def import_profiles(
    format: str, path: Path, out: Path, *, device: str | None, library: str | None, seed: int, tell: Tell
) -> list[Path]:
    """Fit other people's measurements, one profile a device and library. Returns their paths."""
    sets = import_measurements(format, path, device=device, library=library)
    command = f"simtool calibrate import {format} --seed {seed}"
    return [write_fit(measured, out, seed=seed, tell=tell, command=command) for measured in sets]


def write_fit(measured: MeasuredSet, out: Path, *, seed: int, tell: Tell, command: str) -> Path:
    """Fit `measured` and write DEVICE__LIBRARY__VERSION.json under `out`. Returns its path."""
    told = list(refusals(measured))
    for line in told[:MOST_REFUSALS_TOLD]:
        tell(line)
    if len(told) > MOST_REFUSALS_TOLD:
        tell(f"and {len(told) - MOST_REFUSALS_TOLD} more refused rows")
    if measured.tables and all(rows.family == "step" for rows in measured.tables):
        hint = "no kernel can be told from them; they are for comparing predictions with (docs/validation.md)"
        raise InputError(measured.source, "holds whole steps only", hint)
    table = profile_table(measured, fit_set(measured, seed=seed, tell=tell), command=command)
    out.mkdir(parents=True, exist_ok=True)
    path = out / profile_name(measured)
    write_profile(table, path)
    return path
