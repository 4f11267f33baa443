"""The points journal: JSON Lines, a header and then one line a measurement, flushed as measured.

A run that was cut (Ctrl-C, a killed container) leaves a whole file, or one whose last line lacks its end; that line is
dropped. Any other damage is an InputError that names the line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from simtool.calibration.collective_samples import Samples
from simtool.calibration.measured_set import Contention, HostTime, MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.calibration.points import (
    OPTIONAL_DIMS,
    POINT_DIMS,
    JournalHeader,
    JournalRow,
    Row,
    Sentinel,
    TimedCollective,
    TimedCopy,
    TimedPoint,
)
from simtool.calibration.points_text import BadLineError, header_text, read_header, read_row, row_text
from simtool.errors import InputError
from simtool.files import output_file, read_text
from simtool.hardware.fitted_work import ROUTING

MAX_JOURNAL_BYTES = 200_000_000  # a row is about 250 bytes
SENTINEL_DRIFT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What a journal holds. whole_bytes: its length without a cut last line; cut: whether there is such a line."""

    path: Path
    header: JournalHeader
    rows: tuple[JournalRow, ...]
    whole_bytes: int
    cut: bool = False

    @property
    def spent_s(self) -> float:
        """Seconds of measuring so far."""
        return self.rows[-1].at_s if self.rows else 0.0


def start_journal(path: Path, header: JournalHeader) -> Journal:
    """A new journal with only its header; it appears by one rename. InputError where it cannot be written."""
    line = header_text(header) + "\n"
    with output_file(path) as building:
        building.write_text(line, encoding="utf-8", newline="\n")
    return Journal(path=path, header=header, rows=(), whole_bytes=len(line.encode()))


def read_journal(path: Path) -> Journal:
    """The journal at `path`. InputError names the line that is damaged."""
    text = read_text(path, kind="points journal", max_bytes=MAX_JOURNAL_BYTES)
    whole, end, rest = text.rpartition("\n")
    if not end:
        raise InputError(str(path), "line 1 is cut", "not a points journal, or its header never got written")
    lines = whole.split("\n")
    header: JournalHeader | None = None
    rows: list[JournalRow] = []
    try:
        header = read_header(lines[0])
        for line in lines[1:]:
            rows.append(_later(read_row(line), rows))
    except BadLineError as error:
        number = 1 if header is None else len(rows) + 2
        raise InputError(str(path), f"line {number} {error}", "the journal is damaged") from None
    whole_bytes = path.stat().st_size - len(rest.encode())
    return Journal(path=path, header=header, rows=tuple(rows), whole_bytes=whole_bytes, cut=bool(rest))


def _later(row: JournalRow, before: Sequence[JournalRow]) -> JournalRow:
    if before and row.at_s < before[-1].at_s:
        raise BadLineError(f"is of {row.at_s:g} s, before the line above")
    return row


class JournalWriter:
    """Appends rows to a journal, each flushed to the disk's cache as it is written. A cut last line goes first."""

    def __init__(self, journal: Journal) -> None:
        self._path = journal.path
        self._file: IO[bytes] | None = None
        self._whole_bytes = journal.whole_bytes

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("r+b")
            self._file.truncate(self._whole_bytes)
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise InputError(str(self._path), f"cannot be written: {error.strerror}", "another --out") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, row: Row, at_s: float) -> JournalRow:
        """Write `row`, measured `at_s` seconds into the run, as one line."""
        assert self._file is not None, "used outside its with block"
        written = JournalRow(at_s=round(at_s, 4), row=row)
        self._file.write((row_text(written) + "\n").encode())
        self._file.flush()
        return written


def measured_set(journal: Journal) -> MeasuredSet:
    """What a journal measured, as the fit takes it. Of expert kernels only the rows under `ROUTING` are taken."""
    header, rows = journal.header, [written.row for written in journal.rows]
    facts: dict[str, str | float] = dict(header.machine)
    facts |= {"seed": float(header.seed), "measuring_s": journal.spent_s, **_drift(rows)}
    return MeasuredSet(
        device=header.device,
        library=header.library,
        version=header.version,
        source=f"simtool profiling of this machine, {header.machine.get('date', 'undated')}",
        machine=facts,
        tables=_tables(journal),
        collectives=_collectives(rows),
        copies=_copies(rows),
        contention=tuple(row for row in rows if isinstance(row, Contention)),
        host=tuple(row for row in rows if isinstance(row, HostTime)),
    )


def fitted_to(row: TimedPoint) -> bool:
    """Whether the fit uses the row: the cost model assumes one routing of tokens to experts."""
    return row.point.family != "moe" or row.point.kernel.endswith(f":{ROUTING}")


def sentinel_drift(rows: Sequence[Row]) -> float:
    """Largest relative departure of the sentinel from its median; 0 with fewer than two."""
    seconds = np.array([row.seconds for row in rows if isinstance(row, Sentinel)])
    return float(np.max(np.abs(seconds / np.median(seconds) - 1.0))) if len(seconds) > 1 else 0.0


def _drift(rows: Sequence[Row]) -> Mapping[str, float]:
    return {"sentinel_drift": round(sentinel_drift(rows), 4)}


def _tables(journal: Journal) -> tuple[Measurements, ...]:
    groups: dict[tuple[str, str], list[tuple[int, TimedPoint]]] = {}
    for line, written in enumerate(journal.rows, start=2):
        if isinstance(written.row, TimedPoint) and fitted_to(written.row):
            point = written.row.point
            groups.setdefault((point.family, point.dtype), []).append((line, written.row))
    return tuple(_table(journal.path.name, *key, numbered) for key, numbered in sorted(groups.items()))


def _table(name: str, family: str, dtype: str, numbered: Sequence[tuple[int, TimedPoint]]) -> Measurements:
    points = [row.point for _, row in numbered]
    dims = {dim: np.array([p.dims[dim] for p in points]) for dim in POINT_DIMS[family]}
    for dim in OPTIONAL_DIMS.get(family, ()):  # kv_max of equally long caches is their length
        dims[dim] = np.array([p.dims.get(dim, p.dims["kv_len"]) for p in points])
    return Measurements(
        family=family,
        dtype=dtype,
        dims=dims,
        seconds=np.array([row.timing.seconds for _, row in numbered]),
        lines=np.array([line for line, _ in numbered], dtype=np.intp),
        table=name,
        kernels=tuple(sorted({p.kernel for p in points})),
        spread=np.array([row.timing.spread for _, row in numbered]),
    )


def _collectives(rows: Sequence[Row]) -> tuple[Samples, ...]:
    groups: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for row in rows:
        if isinstance(row, TimedCollective):
            key = (row.name, row.library, row.ranks)
            groups.setdefault(key, []).append((row.size_bytes, row.timing.seconds))
    return tuple(_samples(*key, pairs) for key, pairs in sorted(groups.items()))


def _copies(rows: Sequence[Row]) -> tuple[Samples, ...]:
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if isinstance(row, TimedCopy):
            groups.setdefault(row.name, []).append((row.size_bytes, row.timing.seconds))
    return tuple(_samples(name, "torch", 1, pairs) for name, pairs in sorted(groups.items()))


def _samples(kind: str, library: str, ranks: int, pairs: Sequence[tuple[float, float]]) -> Samples:
    columns = np.array(sorted(pairs))
    return Samples(
        kind=kind,
        library=library,
        ranks=ranks,
        size_bytes=columns[:, 0],
        seconds=columns[:, 1],
        source="simtool profiling of this machine",
    )
