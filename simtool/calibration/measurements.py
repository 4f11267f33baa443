"""Measurements: rows of a kernel table as operator dims and seconds, with the bad rows named."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.hardware.device import Device
from simtool.hardware.fitted_work import FAMILY_TERMS

Array = NDArray[np.float64]

MAX_TABLE_BYTES = 500_000_000  # unpacked; the largest known table is 12 MB
FASTER_THAN_PEAK = 1.15  # a row this much faster than the datasheet's compute peak is a broken measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refused row: its 1-based line in the file (the header is line 1) and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Columns of N kernel calls of one family and dtype on one device.

    dims as simtool.models.operators names them; seconds [N]; lines [N]: where each row stood in the table. spread [N]:
    relative interquartile range of a row's repeats (0 where the source gives one number).
    """

    family: str
    dtype: str
    dims: Mapping[str, Array]
    seconds: Array
    lines: NDArray[np.intp]
    table: str
    kernels: tuple[str, ...]
    refused: tuple[Refusal, ...] = ()
    spread: Array = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not len(self.spread):
            object.__setattr__(self, "spread", np.zeros(len(self.seconds)))

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Measurements:
        """The same with only `rows`."""
        return Measurements(
            family=self.family,
            dtype=self.dtype,
            dims={name: column[rows] for name, column in self.dims.items()},
            seconds=self.seconds[rows],
            lines=self.lines[rows],
            table=self.table,
            kernels=self.kernels,
            refused=self.refused,
            spread=self.spread[rows],
        )


def read_columns(path: Path, needed: tuple[str, ...]) -> dict[str, list[str]]:
    """The columns of a CSV (gzip by its suffix) as text. InputError: unreadable, cut short, or a column is missing."""
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            text = file.read(MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read as a table: {error}", "a whole .csv or .csv.gz") from None
    if len(text) > MAX_TABLE_BYTES:
        raise InputError(path, f"is larger than {MAX_TABLE_BYTES} bytes", "a kernel table")
    rows = csv.reader(text.splitlines())
    header = next(rows, [])
    missing = [name for name in needed if name not in header]
    if missing:
        raise InputError(path, f"lacks the columns {', '.join(missing)}", f"it has {', '.join(header) or 'nothing'}")
    columns: dict[str, list[str]] = {name: [] for name in header}
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(
                path, f"line {line} has {len(row)} fields, not {len(header)}", "the file is cut or damaged"
            )
        for name, value in zip(header, row, strict=True):
            columns[name].append(value)
    return columns


def numbers(column: list[str] | Array) -> Array:
    """Text to floats; what is no number becomes NaN (and is refused later, with its line)."""
    if isinstance(column, np.ndarray):
        return column.astype(np.float64)

    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return float("nan")

    return np.array([number(text) for text in column], dtype=np.float64)


def refuse_bad_rows(rows: Measurements, device: Device | None) -> Measurements:
    """Drop rows that are not finite, not positive, or faster than the device's compute peak allows; name each.

    Only compute is a hard limit: a small working set is read from cache, faster than memory. device None: not in the
    catalogue, so there is no peak.
    """
    finite = np.isfinite(rows.seconds)
    for column in rows.dims.values():
        finite &= np.isfinite(column) & (column >= 0)
    positive = finite & (np.where(finite, rows.seconds, 1.0) > 0)
    safe = {name: np.where(positive, column, 1.0) for name, column in rows.dims.items()}
    least = _least_seconds(rows, safe, device)
    possible = positive & (np.where(positive, rows.seconds, np.inf) >= least)
    refused = []
    for index in np.flatnonzero(~possible):
        if not finite[index]:
            reason = "a value is missing, negative or not a number"
        elif not positive[index]:
            reason = f"latency {rows.seconds[index]:g} s is not positive"
        else:
            reason = f"{rows.seconds[index]:.3g} s is faster than {FASTER_THAN_PEAK} x the peak ({least[index]:.3g} s)"
        refused.append(Refusal(line=int(rows.lines[index]), reason=reason))
    kept = rows.take(np.flatnonzero(possible))
    return replace(kept, refused=(*rows.refused, *refused))


def _least_seconds(rows: Measurements, dims: Mapping[str, Array], device: Device | None) -> Array:
    """Seconds of the rows' arithmetic at FASTER_THAN_PEAK; 0 where the device or the family has no such limit."""
    if device is None or rows.family not in FAMILY_TERMS:
        return np.zeros(len(rows.seconds))
    from simtool.hardware.profile_choice import computes_in  # brings pydantic, which a GPU container may lack

    # attention over an FP8 cache may multiply in FP8, whatever its own law is fitted against
    narrow = rows.family not in ("gemm", "moe") and "fp8" in device.flops
    peak = device.peak_flops("fp8" if narrow else computes_in(rows.family, rows.dtype))
    return FAMILY_TERMS[rows.family].work(dims, rows.dtype).flops / (FASTER_THAN_PEAK * peak)
