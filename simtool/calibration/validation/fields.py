"""Fields of other tools' JSON: read with their unit, checked, every fault an InputError that names file and field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.files import read_text

MAX_BYTES = 2**30
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
_LARGEST = 1e300  # JSON may hold whole numbers that no float is
TRUNCATED = "the file may be truncated"


def json_objects(path: Path) -> list[dict[str, Any]]:
    """The file's objects: one that is the whole file, or one a line (JSONL). Raises InputError."""
    text = read_text(path, kind="benchmark's result", max_bytes=MAX_BYTES)
    if not text.strip():
        raise InputError(path, "is empty", "give the file that the benchmark wrote")
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _lines(path, text, error)
    if not isinstance(whole, dict):
        raise InputError(path, "must be one JSON object, or one a line")
    return [whole]


def _lines(path: Path, text: str, error: Exception) -> list[dict[str, Any]]:
    """The objects of JSONL. error: why the whole is not JSON, which is told where it is no JSONL either."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) < 2 or not lines[0][1].rstrip().endswith("}"):
        raise InputError(path, f"is not JSON: {error}", TRUNCATED)
    found = []
    for number, line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as wrong:
            raise InputError(f"{path} line {number}", f"is not JSON: {wrong}", TRUNCATED) from None
        if not isinstance(value, dict):
            raise InputError(f"{path} line {number}", "must be one JSON object a line")
        found.append(value)
    return found


def finite(value: object) -> float:
    """A number; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LARGEST:
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def whole(value: object, what: str, source: object, *, most: int = 2**31 - 1) -> int:
    """A whole number from 0 to `most`; 0 where there is none. Raises InputError for another number."""
    number = finite(value)
    if math.isnan(number):
        return 0
    if not 0 <= number <= most or number != round(number):
        raise InputError(source, f"{what} is {number:g}", f"a whole number from 0 to {most:,}")
    return int(number)


def listed(document: Mapping[str, Any], key: str) -> list[Any]:
    """A list of the document; empty where it has none."""
    values = document.get(key)
    return values if isinstance(values, list) else []


def seconds(value: object, unit: object, source: object) -> float:
    """A time with the unit that stands beside it. Raises InputError for a unit that is no time."""
    if str(unit) not in _SECONDS:
        raise InputError(source, f"has a time in {unit!r}", f"known units are {', '.join(_SECONDS)}")
    return finite(value) * _SECONDS[str(unit)]


def known(values: Mapping[str, object]) -> dict[str, float]:
    """Those that are finite numbers."""
    found = {key: finite(value) for key, value in values.items()}
    return {key: value for key, value in found.items() if not math.isnan(value)}


def column(document: Mapping[str, Any], key: str, source: object, *, rows: int | None = None) -> list[Any]:
    """A list of the document, of `rows` entries where that is given."""
    values = document.get(key)
    if not isinstance(values, list):
        raise InputError(source, f"has no list {key!r}", "save the benchmark's detailed result")
    if rows is not None and len(values) != rows:
        raise InputError(source, f"has {len(values)} {key} for {rows} requests", "the file may be damaged")
    return values


def numbers(values: Iterable[object], what: str, source: object) -> NDArray[np.float64]:
    """A column of finite numbers. Raises InputError that names the first request without one."""
    found = np.array([finite(value) for value in values], np.float64)
    bad = np.flatnonzero(np.isnan(found))
    if len(bad):
        raise InputError(source, f"request {bad[0]} has no finite {what}", "the file may be damaged")
    return found


def counts(values: Iterable[object], what: str, source: object) -> NDArray[np.int32]:
    """A column of token counts."""
    found = numbers(values, what, source)
    if len(found) and (found.min() < 0 or found.max() >= 2**31 or np.any(found != np.rint(found))):
        row = int(np.flatnonzero((found < 0) | (found >= 2**31) | (found != np.rint(found)))[0])
        raise InputError(source, f"request {row} has {what} of {found[row]:g}", "token counts are whole numbers")
    return found.astype(np.int32)


def part(document: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """An inner object by its path; empty where it is not there."""
    for key in keys:
        inner = document.get(key)
        if not isinstance(inner, Mapping):
            return {}
        document = inner
    return document
