"""Routing traces as files: .npz (columns) or .jsonl (a header, then one token a line), read, checked and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.files import output_file
from simtool.models.routing.trace import MOST_EXPERTS, RoutingTrace, make_trace
from simtool.models.routing.trace_jsonl import TOKEN_COLUMNS, jsonl_columns, jsonl_lines
from simtool.npz_file import read_npz, whole_numbers

_HINT = "a routing trace is .npz or .jsonl, as docs/routing.md describes"
_DAMAGED = "the file may be damaged"


def read_routing(path: Path) -> RoutingTrace:
    """A recorded trace: columns where the suffix is .npz, else JSONL, plain or gzip.

    Every expert must be one of num_experts and differ from the others of its token and layer. Raises InputError for a
    file that is missing, truncated, ragged or wrong.
    """
    if path.suffix == ".npz":
        columns, source = read_npz(path, kind="routing trace", hint=_HINT), path.name
    else:
        columns, source = jsonl_columns(path)
    _check_columns(path, columns)
    trace = make_trace(
        experts=columns["experts"].astype(np.int16),
        sequence=columns["sequence"].astype(np.int32),
        position=columns["position"].astype(np.int32),
        step=columns["step"].astype(np.int32),
        prefill=columns["prefill"].astype(np.bool_),
        num_experts=int(columns["num_experts"]),
        layers=tuple(columns["layers"].astype(int).tolist()),
        source=source,
    )
    _check_once(path, trace)
    return trace


def write_routing(trace: RoutingTrace, path: Path) -> None:
    """Write whole or not at all, by the suffix of `path`. Raises InputError as check_routing_path."""
    check_routing_path(path)
    with output_file(path) as building:
        if path.suffix == ".npz":
            np.savez_compressed(building, **_columns(trace))  # type: ignore[arg-type]
            return
        with building.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in jsonl_lines(trace))


def check_routing_path(path: Path) -> None:
    """Raise InputError where a trace cannot be written: to be asked before the work that it comes from."""
    if path.suffix not in (".npz", ".jsonl"):
        raise InputError(path, "has no suffix of a routing trace", "FILE.npz or FILE.jsonl")
    if not path.parent.is_dir():
        raise InputError(path, "its folder does not exist", "make the folder first")


def _columns(trace: RoutingTrace) -> dict[str, NDArray[Any]]:
    return {
        "experts": trace.experts,
        "sequence": trace.sequence,
        "position": trace.position,
        "step": trace.step,
        "prefill": trace.prefill.astype(np.int8),
        "num_experts": np.array(trace.num_experts),
        "layers": np.array(trace.layers, np.int32),
    }


def _check_columns(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Raise InputError for a column that is missing, of another shape or out of its range."""
    missing = [name for name in ("experts", *TOKEN_COLUMNS, "num_experts", "layers") if name not in columns]
    if missing:
        raise InputError(path, f"has no {missing[0]}", _HINT)
    for name, dimensions in {"num_experts": 0, "layers": 1, "experts": 3, **dict.fromkeys(TOKEN_COLUMNS, 1)}.items():
        if columns[name].ndim != dimensions:
            raise InputError(path, f"{name} has {columns[name].ndim} dimensions and not {dimensions}", _DAMAGED)
    whole_numbers(path, "num_experts", columns["num_experts"], least=1, most=MOST_EXPERTS)
    whole_numbers(path, "layers", columns["layers"], least=0, most=MOST_EXPERTS)
    if (np.diff(columns["layers"].astype(np.int64)) <= 0).any():
        raise InputError(path, "layers do not ascend", _DAMAGED)
    tokens, layers, top_k = columns["experts"].shape
    if layers != len(columns["layers"]) or not layers or not top_k:
        rule = f"experts are of {layers} layers and {top_k} choices, and layers are {len(columns['layers'])}"
        raise InputError(path, rule, _DAMAGED)
    for name in TOKEN_COLUMNS:
        if len(columns[name]) != tokens:
            raise InputError(path, f"{name} has {len(columns[name])} entries for {tokens} tokens", _DAMAGED)
        whole_numbers(path, name, columns[name], least=0, most=1 if name == "prefill" else 2**31 - 1)
    _check_experts(path, columns["experts"], int(columns["num_experts"]), columns["layers"])


def _check_experts(path: Path, experts: NDArray[Any], number: int, layers: NDArray[Any]) -> None:
    """Raise InputError for the first expert that is none of `number`, or that one token and layer has twice."""
    bad = ~((experts >= 0) & (experts < number) & (experts == np.floor(experts)))
    if bad.any():
        token, layer, rank = np.argwhere(bad)[0]
        rule = f"token {token}, layer {layers[layer]:g} has expert {experts[token, layer, rank]:g}"
        raise InputError(path, rule, f"whole numbers from 0 to {number - 1}; {_DAMAGED}")
    ordered = np.sort(experts, axis=2)
    twice = ordered[:, :, 1:] == ordered[:, :, :-1]
    if twice.any():
        token, layer, rank = np.argwhere(twice)[0]
        rule = f"token {token}, layer {layers[layer]:g} has expert {ordered[token, layer, rank]:g} twice"
        raise InputError(path, rule, f"a token chooses an expert once; {_DAMAGED}")


def _check_once(path: Path, trace: RoutingTrace) -> None:
    """Raise InputError for a token that one step computes twice."""
    same = (np.diff(trace.sequence) == 0) & (np.diff(trace.position) == 0) & (np.diff(trace.step) == 0)
    if same.any():
        row = int(same.argmax())
        rule = f"token {trace.position[row]} of request {trace.sequence[row]} is twice in step {trace.step[row]}"
        raise InputError(path, rule, _DAMAGED)
