"""JSONL of routing traces: a header, then one token a line; text to columns and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.routing.trace import RoutingTrace
from simtool.traces.numbers import whole_numbers
from simtool.traces.source_file import json_lines, where

VERSION = 1
TOKEN_COLUMNS = ("sequence", "position", "step", "prefill")
_HEADER = ("simtool_routing", "num_experts", "top_k", "layers", "tokens", "source")
_HINT = "a routing trace is described in docs/routing.md"


def jsonl_lines(trace: RoutingTrace) -> Iterator[str]:
    """The lines of a trace, without line ends."""
    header = (VERSION, trace.num_experts, trace.top_k, list(trace.layers), trace.tokens, trace.source)
    yield json.dumps(dict(zip(_HEADER, header, strict=True)))
    for row in range(trace.tokens):
        token = {name: getattr(trace, name)[row].item() for name in TOKEN_COLUMNS}
        yield json.dumps({**token, "experts": trace.experts[row].tolist()}, separators=(",", ":"))


def jsonl_columns(path: Path) -> tuple[dict[str, NDArray[Any]], str]:
    """Columns by name, as a trace's npz has them, and the trace's source. Numbers are whole, not yet in range.

    Raises InputError for a file that is truncated, has ragged rows, unknown keys or what is no number.
    """
    header: dict[str, Any] = {}
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in (*TOKEN_COLUMNS, "experts")}
    for objects, lines in json_lines(path):
        if not header:
            header = _header(path, objects[0])
            objects, lines = objects[1:], lines[1:]
        _check_keys(path, objects, lines)
        for name in TOKEN_COLUMNS:
            parts[name].append(whole_numbers([row[name] for row in objects], name, path, lines, least=0))
        parts["experts"].append(_experts(path, objects, lines, (len(header["layers"]), header["top_k"])))
    if not header:
        raise InputError(path, "is empty", _HINT)
    columns = {name: np.concatenate(part) for name, part in parts.items()}
    if len(columns["step"]) != header["tokens"]:
        rule = f"has {len(columns['step']):,} tokens and its header says {header['tokens']:,}"
        raise InputError(path, rule, "the file may be truncated")
    columns |= {"num_experts": np.array(header["num_experts"]), "layers": np.array(header["layers"])}
    return columns, header["source"]


def _header(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """The first line; its numbers of layers and experts are checked with the columns."""
    if found.get("simtool_routing") != VERSION or set(found) != set(_HEADER):
        raise InputError(where(path, 1), f"is no header with {', '.join(_HEADER)}", _HINT)
    counts = {"top_k": 1, "tokens": 0, "num_experts": 1}
    odd = [key for key, least in counts.items() if type(found[key]) is not int or not least <= found[key] < 2**31]
    if odd or type(found["source"]) is not str:
        raise InputError(where(path, 1), f"its {odd[0] if odd else 'source'} is {found[odd[0] if odd else 'source']!r}")
    layers = found["layers"]
    if not isinstance(layers, list) or not layers or not all(type(layer) is int for layer in layers):
        raise InputError(where(path, 1), "its layers are no list of whole numbers")
    return found


def _check_keys(path: Path, objects: list[dict[str, Any]], lines: list[int]) -> None:
    known = {*TOKEN_COLUMNS, "experts"}
    for row, line in zip(objects, lines, strict=True):
        if row.keys() != known:
            (name, *_) = sorted(row.keys() ^ known)
            rule = f"key {name!r} is {'missing' if name in known else 'unknown'}"
            raise InputError(where(path, line), rule, f"the keys are {', '.join((*TOKEN_COLUMNS, 'experts'))}")


def _experts(path: Path, objects: list[dict[str, Any]], lines: list[int], shape: tuple[int, int]) -> NDArray[Any]:
    """[lines, layers, top_k]; the first line that is otherwise is named."""
    rows = [row["experts"] for row in objects]
    column = _array(rows)
    if column is not None and column.shape == (len(rows), *shape):
        return column
    for row, line in zip(rows, lines, strict=True):
        one = _array(row)
        if one is None or one.shape != shape:
            rule = f"experts are not {shape[0]} layers of {shape[1]} whole numbers"
            raise InputError(where(path, line), rule, "the file may be damaged")
    return np.empty((0, *shape), np.int64)


def _array(rows: Any) -> NDArray[Any] | None:
    """None for what is ragged or holds anything but numbers. Numbers that are not whole are told with their place."""
    try:
        found = np.array(rows)
    except (ValueError, OverflowError):
        return None
    return found if found.dtype.kind in "iuf" else None
