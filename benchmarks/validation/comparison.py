"""Comparison: predicted beside measured, and the errors of a group of rows."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simtool.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity of one measured run. split: the group it is counted in (as "fitted", "held out")."""

    name: str
    quantity: str
    predicted: float
    measured: float
    split: str = "all"

    @property
    def error(self) -> float:
        """Relative, signed: +0.1 is predicted 10% too long."""
        return self.predicted / self.measured - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Absolute relative errors of a group of rows; bias: the median of the signed ones."""

    rows: int
    median: float
    p90: float
    worst: float
    bias: float


def errors_of(rows: Sequence[Row]) -> Errors:
    """Summary of the rows. Raises InputError for none, or for a measurement that is not positive and finite."""
    if not rows:
        raise InputError("rows", "there is nothing to compare")
    for row in rows:
        if not (math.isfinite(row.measured) and row.measured > 0 and math.isfinite(row.predicted)):
            raise InputError(f"{row.name}: {row.predicted} against {row.measured}", "must be finite and positive")
    signed = np.array([row.error for row in rows])
    absolute = np.abs(signed)
    return Errors(
        rows=len(rows),
        median=float(np.median(absolute)),
        p90=float(np.percentile(absolute, 90)),
        worst=float(absolute.max()),
        bias=float(np.median(signed)),
    )


def rows_text(rows: Iterable[Row], unit: str = "ms") -> str:
    """One line a row."""
    lines = [f"{'run':<44} {'quantity':<12} {'split':<10} {'predicted':>11} {'measured':>11} {unit:<6} error"]
    lines += [
        f"{row.name:<44} {row.quantity:<12} {row.split:<10} {row.predicted:>11.2f} {row.measured:>11.2f}"
        f" {unit:<6} {row.error:+.1%}"
        for row in rows
    ]
    return "\n".join(lines)


def errors_text(rows: Sequence[Row]) -> str:
    """One line a (quantity, split): rows, median, p90, worst, bias."""
    lines = [f"{'quantity':<14} {'split':<12} {'rows':>4} {'median':>8} {'p90':>8} {'worst':>8} {'bias':>8}"]
    for quantity, split in dict.fromkeys((row.quantity, row.split) for row in rows):
        found = errors_of([row for row in rows if (row.quantity, row.split) == (quantity, split)])
        numbers = " ".join(f"{value:>8.1%}" for value in (found.median, found.p90, found.worst))
        lines.append(f"{quantity:<14} {split:<12} {found.rows:>4} {numbers} {found.bias:>+8.1%}")
    return "\n".join(lines)


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with `--data`: $SIMTOOL_SHARED/data, or ../shared/data beside the repository."""
    shared = Path(os.environ.get("SIMTOOL_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=shared / "data", help="folder of the public measurements")
    return parser


def data_folder(parser: argparse.ArgumentParser) -> Path:
    """The folder that was asked for; ends the program with one line when it is not there."""
    folder = Path(parser.parse_args().data)
    if not folder.is_dir():
        raise SystemExit(f"ERROR {folder}: no measurements there; give --data FOLDER")
    return folder
