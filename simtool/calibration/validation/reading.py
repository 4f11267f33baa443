"""read_measurement: any measured run that simtool knows, by its content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simtool.calibration.executor.execution import Execution
from simtool.calibration.executor.execution_file import load_execution
from simtool.calibration.validation.execution_check import check_execution
from simtool.calibration.validation.fields import json_objects
from simtool.calibration.validation.measurement import Measurement
from simtool.calibration.validation.read_aiperf import read_records, read_summary
from simtool.calibration.validation.read_guidellm import read_guidellm
from simtool.calibration.validation.read_replay import is_replay, read_replay
from simtool.calibration.validation.read_serving import read_serving
from simtool.calibration.validation.read_trtllm import read_trtllm
from simtool.errors import InputError
from simtool.metrics import serving_metrics

KNOWN = (
    "a folder of simtool execute or of LLMServingSim's bench, or the result file of vllm bench serve, SGLang's "
    "bench_serving, trtllm-bench, GuideLLM or AIPerf"
)
_RECORDS, _SUMMARY = "profile_export.jsonl", "profile_export_aiperf.json"


def read_measurement(path: str | Path) -> Measurement:
    """The run at `path`; of a file with several runs, FILE#2 names the second. Raises InputError."""
    source, path, number = str(path), Path(path), 0
    if not path.exists() and (match := re.fullmatch(r"(.+)#([0-9]{1,9})", source)):
        path, number = Path(match[1]), int(match[2])
        if not number:
            raise InputError(source, "names no run: the first one is #1")
    if path.is_dir():
        _check_number(path, number)
        return _folder(path)
    return _file(path, number)


def of_execution(execution: Execution, source: str) -> Measurement:
    """A run of our own executor. Raises InputError where nothing finished, or what it left is no run."""
    check_execution(execution, source)
    metrics = serving_metrics(execution.result)
    if not metrics["completed"]:
        raise InputError(source, "completed no request", "a run in which every request failed cannot be compared")
    return Measurement(
        tool="simtool execute",
        source=source,
        metrics=metrics,
        result=execution.result,
        workload=execution.workload,
        execution=execution,
        notes=execution.notes,
    )


def _check_number(path: Path, number: int) -> None:
    """Raise InputError for the second run of what holds one."""
    if number > 1:
        raise InputError(f"{path}#{number}", f"{path} holds one run", f"give {path}")


def _folder(path: Path) -> Measurement:
    if (path / _RECORDS).is_file() or (path / _SUMMARY).is_file():
        return _file(path / (_RECORDS if (path / _RECORDS).is_file() else _SUMMARY), 0)
    if replay := is_replay(path):
        return read_replay(replay)
    if (path / "execution.json").is_file():
        return of_execution(load_execution(path), str(path))
    raise InputError(path, "holds no measured run", f"give {KNOWN}")


def _file(path: Path, number: int) -> Measurement:
    objects = json_objects(path)
    first, source = objects[0], str(path)
    if {"metadata", "metrics"} <= first.keys():
        _check_number(path, number)
        beside = path.parent / _SUMMARY
        return read_records(objects, source, json_objects(beside)[0] if beside.is_file() else {})
    if len(objects) > 1:
        if number == 0 or number > len(objects):
            raise InputError(source, f"holds {len(objects)} runs", f"name one: {source}#1 … #{len(objects)}")
        first = objects[number - 1]
    elif "benchmarks" not in first:
        _check_number(path, number)
    return _document(first, source, number)


def _document(document: Mapping[str, Any], source: str, number: int) -> Measurement:
    """One object, by its keys."""
    keys = document.keys()
    if "benchmarks" in keys:
        return read_guidellm(document, source, number)
    if "performance" in keys and keys & {"request_info", "world_info", "engine"}:
        return read_trtllm(document, source)
    if "time_to_first_token" in keys or ("input_config" in keys and "request_latency" in keys):
        return read_summary(document, source)
    if keys & {"mean_e2e_latency_ms", "total_throughput", "server_info"}:
        return read_serving(document, source, "SGLang bench_serving")
    if keys & {"mean_ttft_ms", "request_throughput", "ttfts"}:
        return read_serving(document, source, "vllm bench serve")
    raise InputError(source, "is no measured run that simtool knows", f"give {KNOWN}")
