"""Session: measures a machine within a budget, one row at a time into the journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.points import JournalHeader
from simtool.calibration.points_file import (
    SENTINEL_DRIFT,
    Journal,
    JournalWriter,
    measured_set,
    read_journal,
    sentinel_drift,
    start_journal,
)
from simtool.calibration.profiling.bench import Bench
from simtool.calibration.profiling.request import ProfileRequest
from simtool.calibration.profiling.run import Run
from simtool.errors import InputError

Tell = Callable[[str], None]
Now = Callable[[], float]


def _quiet(text: str) -> None:
    """Nobody listens."""
    del text


def profile_machine(
    request: ProfileRequest,
    journal_path: Path,
    *,
    bench: Bench | None = None,
    tell: Tell = _quiet,
    progress: Tell = _quiet,
    now: Now = time.monotonic,
) -> MeasuredSet:
    """Measure this machine for `request.budget_s` seconds, in all runs on the same journal together.

    tell: notes worth keeping (what was skipped, drift, an interruption). progress: a line after each row. Ctrl-C ends
    the run cleanly: what was measured is returned, with "interrupted" among the machine's facts. InputError where the
    journal is of another request or machine, or is damaged.
    """
    started = now()
    if bench is None:
        from simtool.calibration.profiling.torch_bench import TorchBench

        bench = TorchBench(request.device, request.seed, models=request.served_models)
    journal = _opened(request, journal_path, bench, tell)
    interrupted = False
    with JournalWriter(journal) as writer:
        run = Run(
            bench=bench,
            writer=writer,
            elapsed=lambda: now() - started + journal.spent_s,
            tell=tell,
            progress=progress,
            random=np.random.default_rng([request.seed, len(journal.rows)]),
        )
        try:
            run.measure(request, journal)
        except KeyboardInterrupt:
            interrupted = True
            tell(f"interrupted: {len(journal.rows) + run.written} rows are kept; the same command goes on")
    return _finished(read_journal(journal_path), interrupted=interrupted, tell=tell)


def _opened(request: ProfileRequest, path: Path, bench: Bench, tell: Tell) -> Journal:
    """The journal to go on with, or a new one."""
    dtypes = request.dtypes or bench.usual_dtypes()
    asked = request.as_text(dtypes)
    if not path.exists():
        header = JournalHeader(
            device=bench.device,
            library="torch",
            version=bench.version,
            seed=request.seed,
            request=asked,
            machine=bench.facts(dtypes),
        )
        return start_journal(path, header)
    journal = read_journal(path)
    found = journal.header
    here = {"device": bench.device, "torch": bench.version, "seed": str(request.seed), **asked}
    there = {"device": found.device, "torch": found.version, "seed": str(found.seed), **found.request}
    for name in sorted({*here, *there}):
        if here.get(name) != there.get(name):
            rule = f"was begun with {name} {there.get(name)}, not {here.get(name)}"
            raise InputError(str(path), rule, "ask for the same, or give another file")
    if journal.cut:
        tell("the last line of the journal was cut, and is dropped")
    return journal


def _finished(journal: Journal, *, interrupted: bool, tell: Tell) -> MeasuredSet:
    drift = sentinel_drift([written.row for written in journal.rows])
    if drift > SENTINEL_DRIFT:
        tell(f"the sentinel GEMM drifted by {100 * drift:.0f}%: clocks were not steady")
    found = measured_set(journal)
    return replace(found, machine={**found.machine, "interrupted": "yes"}) if interrupted else found
