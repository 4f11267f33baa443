"""An Execution as a folder: plan.json, trace.jsonl, requests.npz, schedule.npz, execution.json; and back."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.execution import SCHEDULE_COLUMNS, Execution, Schedule
from simtool.calibration.executor.settings import RunSettings
from simtool.errors import InputError
from simtool.files import read_text
from simtool.json_text import json_text
from simtool.measured import load_result, save_requests
from simtool.metrics import Result
from simtool.npz_file import read_npz, whole_numbers
from simtool.traces import read_trace, write_trace

FORMAT = 1
_HINT = "give the folder that `simtool execute --out` wrote"
_MAX_BYTES = 4 * 2**20
_KINDS = {"str": str, "int": int, "bool": bool, "tuple[str, ...]": list}  # of a setting, in JSON


def save_execution(execution: Execution, folder: Path) -> None:
    """Write the files into `folder`, which is there (see files.output_folder)."""
    (folder / "plan.json").write_text(json_text(execution.plan), encoding="utf-8")
    write_trace(execution.workload, folder / "trace.jsonl")
    save_requests(execution.result, folder / "requests.npz")
    columns = {name: getattr(execution.schedule, name) for name in SCHEDULE_COLUMNS}
    columns["token_counts"] = np.array([len(ids) for ids in execution.tokens], np.int64)
    columns["token_ids"] = np.concatenate([np.empty(0, np.int32), *execution.tokens]).astype(np.int32)
    with (folder / "schedule.npz").open("wb") as out:
        np.savez_compressed(out, allow_pickle=False, **columns)
    about = {
        "simtool_execution": FORMAT,
        "layers": execution.layers,
        "environment": dict(execution.environment),
        "notes": list(execution.notes),
        "settings": execution.settings,
    }
    (folder / "execution.json").write_text(json_text(about), encoding="utf-8")


def load_execution(folder: Path) -> Execution:
    """The Execution that save_execution wrote. Raises InputError for a missing or damaged part."""
    from simtool.plan_file import load_plan  # needs pydantic, which a bare GPU image that only saves lacks

    if not folder.is_dir():
        raise InputError(folder, "is no folder of an execution", _HINT)
    about = _about(folder / "execution.json")
    columns = _columns(folder / "schedule.npz")
    workload = read_trace(folder / "trace.jsonl", "jsonl")
    result = load_result(folder / "requests.npz")
    counts = columns.pop("token_counts")
    ids = columns.pop("token_ids")
    if len(counts) != workload.num_requests or counts.sum() != len(ids) or len(result.sent_s) != len(counts):
        raise InputError(folder, "its files are not of one run", _HINT)
    _check_schedule(columns, result, folder)
    return Execution(
        plan=load_plan(folder / "plan.json"),
        workload=workload,
        layers=about["layers"],
        result=result,
        schedule=Schedule(**columns),
        tokens=tuple(np.split(ids, np.cumsum(counts)[:-1])),
        environment=about["environment"],
        notes=tuple(str(note) for note in about["notes"]),
        settings=_settings(about.get("settings"), folder / "execution.json"),
    )


def _about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(read_text(path, kind="execution.json", max_bytes=_MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not JSON: {error}", _HINT) from None
    wanted = {"layers": int, "environment": dict, "notes": list}
    if not isinstance(about, dict) or about.get("simtool_execution") != FORMAT:
        raise InputError(path, "was not written by this simtool's execute", _HINT)
    for key, kind in wanted.items():
        if not isinstance(about.get(key), kind) or about[key] is True or about[key] is False:
            raise InputError(path, f"has no {key}", _HINT)
    if about["layers"] < 1:
        raise InputError(path, "states no layers", "the file may be damaged")
    odd = [key for key, value in about["environment"].items() if not isinstance(value, str | int | float | None)]
    if odd or not all(isinstance(note, str) for note in about["notes"]):
        raise InputError(path, f"{odd[0] if odd else 'a note'} is no text and no number", "the file may be damaged")
    return about


def _settings(told: Any, path: Path) -> RunSettings | None:
    if told is None:  # as in files of earlier versions
        return None
    kinds = {field.name: _KINDS[str(field.type)] for field in fields(RunSettings)}
    if not isinstance(told, dict) or told.keys() != kinds.keys():
        raise InputError(path, f"its settings are not {', '.join(kinds)}", _HINT)
    for name, kind in kinds.items():
        if type(told[name]) is not kind:
            raise InputError(path, f"its setting {name} is {told[name]!r}", _HINT)
    return RunSettings(**{**told, "weight_dtypes": tuple(map(str, told["weight_dtypes"]))})


def _columns(path: Path) -> dict[str, NDArray[Any]]:
    found = read_npz(path, kind="execution's schedule", hint=_HINT)
    wanted = (*SCHEDULE_COLUMNS, "token_counts", "token_ids")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(path, f"has no {missing[0]}", _HINT)
    columns = {name: found[name] for name in wanted}
    if any(column.ndim != 1 or column.dtype.kind not in "iu" for column in columns.values()):
        raise InputError(path, "has columns that are not lists of whole numbers", _HINT)
    if len({len(columns[name]) for name in SCHEDULE_COLUMNS}) != 1:
        raise InputError(path, "has columns of different lengths", "the file may be damaged")
    for name, column in columns.items():
        whole_numbers(path, name, column, least=0, most=2**31 - 1)
    return {name: column.astype(np.int64 if name == "token_counts" else np.int32) for name, column in columns.items()}


def _check_schedule(columns: dict[str, NDArray[Any]], result: Result, folder: Path) -> None:
    """Every row names a step and a request that are there."""
    limits = {"step": len(result.steps.get("start_s", ())), "request": len(result.sent_s)}
    for name, limit in limits.items():
        if len(columns[name]) and not 0 <= columns[name].min() <= columns[name].max() < limit:
            raise InputError(folder, f"its schedule names a {name} that it does not have", _HINT)
