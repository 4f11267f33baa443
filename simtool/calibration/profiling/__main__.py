"""python -m simtool.calibration.profiling --budget 4m --out points.jsonl: measure this machine, write its points.

Needs only torch and numpy (with scipy, points also go where the fit is unsure). Ctrl-C keeps what was measured; the
same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.profiling.request import DTYPES, FAMILIES, SIZES
from simtool.calibration.profiling.request_text import parsed_request
from simtool.calibration.profiling.session import profile_machine
from simtool.errors import SimtoolError


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
    options = _parser().parse_args(arguments)
    terminal = sys.stderr.isatty()

    def tell(note: str) -> None:
        print(("\r\x1b[K" if terminal else "") + note, file=sys.stderr, flush=True)

    def progress(line: str) -> None:
        if terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    try:
        request = parsed_request(
            budget=options.budget,
            device=options.device,
            models=options.models,
            tp=options.tp,
            dtypes=options.dtypes,
            families=options.families,
            sizes={name: getattr(options, name) for name in SIZES},
            seed=options.seed,
        )
        found = profile_machine(request, options.out, tell=tell, progress=progress)
    except (SimtoolError, OSError) as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 2
    progress("")
    print("\n".join(summary_lines(found)))
    return 130 if found.machine.get("interrupted") else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simtool.calibration.profiling", description=__doc__)
    parser.add_argument("--budget", default="4m", help="time to measure for, as 240s or 4m")
    parser.add_argument("--out", type=Path, required=True, help="journal of the points; an old one is gone on with")
    parser.add_argument("--models", default="", help="models to be served, comma-separated")
    parser.add_argument("--tp", default="", help="tensor-parallel degrees to cut them by, as 1,8")
    parser.add_argument("--dtypes", default="", help=f"of {', '.join(DTYPES)}")
    parser.add_argument("--families", default="", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="", help="default: the GPU where there is one")
    for name, what in (("batched-tokens", "tokens of a step"), ("seqs", "requests of a step")):
        parser.add_argument(f"--max-num-{name}", type=int, default=0, help=f"most {what} to be served [usual]")
    parser.add_argument("--max-model-len", type=int, default=0, help="longest context to be served [usual]")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
