"""python -m simtool.calibration.profiling --budget 4m --out points.jsonl: measure this machine, write its points.

Needs only torch and numpy (with scipy, points also go where the fit is unsure). Ctrl-C keeps what was measured; the
same command goes on.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.profiling.request import DTYPES, FAMILIES, ProfileRequest
from simtool.calibration.profiling.session import profile_machine
from simtool.errors import InputError, SimtoolError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def budget_seconds(text: str) -> float:
    """Seconds of "240", "240s", "4m" or "0.5h". InputError for anything else."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smh]?)", text.strip().lower())
    if found is None:
        raise InputError(text, "is no budget", "seconds, or as 240s, 4m, 0.5h")
    return float(found[1]) * _UNITS[found[2]]


def names(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def degrees(text: str) -> tuple[int, ...]:
    """Whole numbers of a comma-separated list."""
    if not re.fullmatch(r"\s*(\d{1,4}\s*(,\s*\d{1,4}\s*)*)?", text):
        raise InputError(text, "holds no tensor-parallel degrees", "as 1,8")
    return tuple(int(part) for part in names(text))


def usual_device() -> Literal["cpu", "cuda"]:
    """The GPU where torch sees one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def parsed_request(options: argparse.Namespace) -> ProfileRequest:
    """What the command line asks for. InputError where it makes no sense."""
    return ProfileRequest(
        device=options.device or usual_device(),
        budget_s=budget_seconds(options.budget),
        models=names(options.models),
        tp=degrees(options.tp),
        dtypes=names(options.dtypes),
        families=names(options.families) or FAMILIES,
        seed=options.seed,
    )


def summary_lines(found: MeasuredSet) -> list[str]:
    """What was measured, for the terminal."""
    lines = [f"{found.device}, torch {found.version}"]
    lines += [f"  {table.family}/{table.dtype}: {len(table.seconds)} points" for table in found.tables]
    lines += [f"  {samples.kind} ({samples.library}): {len(samples.seconds)} sizes" for samples in found.copies]
    lines += [f"  {s.kind} ({s.library} x{s.ranks}): {len(s.seconds)} sizes" for s in found.collectives]
    lines += [f"  {time.name}: {1e6 * time.seconds:.2f} us" for time in found.host]
    for pair in found.contention:
        kept = f"{100 * pair.first_keeps:.0f}% and {100 * pair.second_keeps:.0f}% of their speed"
        lines.append(f"  {pair.first} beside {pair.second} keep {kept}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m simtool.calibration.profiling", description=__doc__)
    parser.add_argument("--budget", default="4m", help="time to measure for, as 240s or 4m")
    parser.add_argument("--out", type=Path, required=True, help="journal of the points; an old one is gone on with")
    parser.add_argument("--models", default="", help="models to be served, comma-separated")
    parser.add_argument("--tp", default="", help="tensor-parallel degrees to cut them by, as 1,8")
    parser.add_argument("--dtypes", default="", help=f"of {', '.join(DTYPES)}")
    parser.add_argument("--families", default="", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    terminal = sys.stderr.isatty()

    def tell(note: str) -> None:
        print(("\r\x1b[K" if terminal else "") + note, file=sys.stderr, flush=True)

    def progress(line: str) -> None:
        if terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    try:
        found = profile_machine(parsed_request(options), options.out, tell=tell, progress=progress)
    except (SimtoolError, OSError) as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 2
    progress("")
    print("\n".join(summary_lines(found)))
    return 130 if found.machine.get("interrupted") else 0


if __name__ == "__main__":
    sys.exit(main())
