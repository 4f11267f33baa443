"""Loads of experts from a CSV file: a matrix (one line a layer), or counts by layer and expert under a header.

With a column `window` as well, loads over time.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simtool.errors import InputError
from simtool.files import read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_BYTES = 2**26
_MOST_LOADS = 2**26
_MOST_EXPERTS = 2**14  # a layer; a number in a file may be anything
_COUNTS = ("count", "load", "tokens")
_HINT = "one line of numbers a layer, or columns layer, expert and count"
_WINDOWS_HINT = "columns window, layer, expert and count"
_Counts = dict[tuple[int, ...], float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoads:
    """layers: the layers' numbers as the file has them, rising. loads: [layers, experts]."""

    layers: tuple[int, ...]
    loads: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadWindows:
    """windows, layers: their numbers as the file has them, rising. loads: [windows, layers, experts]."""

    windows: tuple[int, ...]
    layers: tuple[int, ...]
    loads: NDArray[np.float64]


def read_expert_loads(path: Path, where: Mapping[str, str] | None = None) -> ExpertLoads:
    """The loads in the file. where: column → the value that a line must have there to count.

    A pair of layer and expert that no line names has a load of 0; one that two lines name is an error, because the
    file then holds more than one set of counts. Raises InputError.
    """
    rows = _rows(path, _HINT)
    head = [cell.strip() for cell in rows[0]]
    if "layer" in head and "expert" in head:
        return _counted(path, head, rows[1:], where or {})
    if where:
        raise InputError(path, "has no columns to choose lines by", _HINT)
    return _matrix(path, rows)


def read_load_windows(path: Path, where: Mapping[str, str] | None = None) -> LoadWindows:
    """Loads over time: columns window, layer, expert and count (or load, tokens), windows in order of their numbers.

    As `read_expert_loads`, for each window. Raises InputError.
    """
    import numpy as np

    rows = _rows(path, _WINDOWS_HINT)
    head = [cell.strip() for cell in rows[0]]
    lost = [name for name in ("window", "layer", "expert") if name not in head]
    if lost:
        raise InputError(path, f"has no column {lost[0]}", _WINDOWS_HINT)
    found = _found(path, head, rows[1:], where or {}, ("window", "layer", "expert"))
    windows = sorted({key[0] for key in found})
    layers = sorted({key[1] for key in found})
    experts = max(key[2] for key in found) + 1
    if len(windows) * len(layers) * experts > _MOST_LOADS:
        raise InputError(path, f"names more than {_MOST_LOADS:,} loads", "fewer windows, layers or experts")
    loads = np.zeros((len(windows), len(layers), experts))
    place_of_window, place_of_layer = ({number: at for at, number in enumerate(these)} for these in (windows, layers))
    for (window, layer, expert), value in found.items():
        loads[place_of_window[window], place_of_layer[layer], expert] = value
    return LoadWindows(windows=tuple(windows), layers=tuple(layers), loads=loads)


def _rows(path: Path, hint: str) -> list[list[str]]:
    """Lines that are not blank, at least one."""
    text = read_text(path, kind="CSV file of expert loads", max_bytes=_MAX_BYTES)
    try:
        rows = [row for row in csv.reader(text.splitlines(), strict=True) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(path, f"is not CSV: {error}", hint) from error
    if not rows:
        raise InputError(path, "holds no numbers", hint)
    return rows


def _matrix(path: Path, rows: Sequence[Sequence[str]]) -> ExpertLoads:
    import numpy as np

    if len({len(row) for row in rows}) > 1 or len(rows[0]) > _MOST_EXPERTS:
        raise InputError(path, f"has lines of {len(rows[0])} and of other numbers of values", _HINT)
    loads = [[_number(path, line, cell) for cell in row] for line, row in enumerate(rows, 1)]
    return ExpertLoads(layers=tuple(range(len(rows))), loads=np.array(loads, np.float64))


def _counted(path: Path, head: list[str], rows: Sequence[Sequence[str]], where: Mapping[str, str]) -> ExpertLoads:
    import numpy as np

    found = _found(path, head, rows, where, ("layer", "expert"))
    layers = sorted({layer for layer, _ in found})
    loads = np.zeros((len(layers), max(expert for _, expert in found) + 1))
    for (layer, expert), value in found.items():
        loads[layers.index(layer), expert] = value
    return ExpertLoads(layers=tuple(layers), loads=loads)


def _found(
    path: Path, head: list[str], rows: Sequence[Sequence[str]], where: Mapping[str, str], keys: tuple[str, ...]
) -> _Counts:
    """The numbers in the columns `keys` → the count, of the lines that `where` lets through; at least one."""
    count = next((name for name in _COUNTS if name in head), None)
    lost = [name for name in where if name not in head]
    if count is None or lost:
        raise InputError(path, f"has no column {lost[0] if lost else 'count'}", f"it has {', '.join(head)}")
    found: _Counts = {}
    for line, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise InputError(path, f"line {line} has {len(row)} of {len(head)} values", "was the file cut off?")
        named = dict(zip(head, (cell.strip() for cell in row), strict=True))
        if any(named[name] != value for name, value in where.items()):
            continue
        key = tuple(_whole(path, line, named[name]) for name in keys)
        if key in found:
            words = ", ".join(f"{name} {value}" for name, value in zip(keys, key, strict=True))
            raise InputError(
                path, f"line {line} gives {words} once more", "choose one set of counts: --where COLUMN=VALUE"
            )
        found[key] = _number(path, line, named[count])
    if not found:
        raise InputError(path, "has no such lines", "do the values of --where occur in it?")
    return found


def _number(path: Path, line: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(path, f"line {line}: {cell.strip()[:40]!r} is no load", "numbers of 0 or more")
    return value


def _whole(path: Path, line: int, cell: str) -> int:
    value = int(cell) if cell.isdecimal() and len(cell) < 8 else -1
    if not 0 <= value < _MOST_EXPERTS:
        raise InputError(
            path, f"line {line}: {cell[:40]!r} is no layer, expert or window", f"whole numbers below {_MOST_EXPERTS:,}"
        )
    return value
