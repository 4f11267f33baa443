"""Numbers of a trace: a chunk of a column parsed at once, and the bad row found by name when that fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.traces.source_file import where

MAX_TOKENS = int(np.iinfo(np.int32).max)


def whole_numbers(
    values: Sequence[Any], name: str, path: Path, lines: Sequence[int], *, least: int, most: int = MAX_TOKENS
) -> NDArray[np.int64]:
    """Column `name` as whole numbers within [least, most]; `lines` says where each value stands, for the error."""
    column = finite_numbers(values, name, path, lines)
    rounded = np.rint(column)
    bad = np.flatnonzero((rounded != column) | (column < least) | (column > most))
    if len(bad):
        row = int(bad[0])
        rule = f"must be a whole number of at least {least}" + (f" and at most {most}" if column[row] > most else "")
        raise InputError(f"{where(path, lines[row])}: {name} = {_shown(values[row])}", rule)
    return rounded.astype(np.int64)


def finite_numbers(
    values: Sequence[Any], name: str, path: Path, lines: Sequence[int], *, least: float = -math.inf
) -> NDArray[np.float64]:
    """Column `name` as finite floats of at least `least`. JSON strings are not numbers; CSV text is."""
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        column = np.array([_number(value) for value in values])
    if column.shape != (len(values),):
        column = np.array([_number(value) for value in values])
    bad = np.flatnonzero(~np.isfinite(column) | (column < least))
    if len(bad):
        row = int(bad[0])
        rule = "must be a finite number" if not np.isfinite(column[row]) else f"must be at least {least:g}"
        raise InputError(f"{where(path, lines[row])}: {name} = {_shown(values[row])}", rule)
    return column


def _number(value: Any) -> float:
    """The value as a float, NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _shown(value: Any) -> str:
    """A value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def without_output(output_tokens: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Which rows to keep when rows without output are dropped; None: all of them."""
    keep = output_tokens > 0
    return None if keep.all() else keep
