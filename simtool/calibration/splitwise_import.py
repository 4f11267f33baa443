"""Importer of splitwise-sim's perf_model.csv as MeasuredSets (Mutinifni/splitwise-sim, MIT): milliseconds, whole steps.

A row times one batch of equal requests through a whole model: prompt_time is its prefill step, token_time its mean
decode step. Neither is a kernel, so the rows are of family "step", which the fit of kernels skips; they are there to
check a simulated step against. Dims: prompt_tokens (a request), batch, tokens_out (0: the prefill step) and tp.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from simtool.calibration.importing_rows import choose_folders
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.measurements import Measurements, numbers, read_columns
from simtool.errors import InputError
from simtool.units import MS

STEP = "step"
NAMES: Mapping[str, str] = {"a100-80gb": "a100-80g", "h100-80gb": "h100-sxm"}
CAPPED = "-pcap"  # the device ran below its power limit
SHAPE = ("prompt_size", "batch_size", "token_size", "tensor_parallel")
TIMES = {"prefill": "prompt_time", "decode": "token_time"}


def read_splitwise(path: Path, device: str | None, library: str | None) -> Iterator[MeasuredSet]:
    """One unchecked set a device. path: the csv, or the folder with perf_model*.csv."""
    files = [path] if path.is_file() else sorted([*path.glob("perf_model*.csv"), *path.glob("data/perf_model*.csv")])
    if not files:
        raise InputError(path, "holds no perf_model*.csv", "splitwise-sim's data/perf_model.csv")
    for file in files:
        columns = read_columns(file, ("model", "hardware", *SHAPE, *TIMES.values()))
        hardware = np.array(columns["hardware"])
        full_power = {name for name in columns["hardware"] if not name.endswith(CAPPED)}
        for folder, name in choose_folders(full_power, NAMES, device, file).items():
            yield MeasuredSet(
                device=name,
                library=library or "vllm",
                version="splitwise-sim",
                source="Mutinifni/splitwise-sim perf_model.csv",
                licence="MIT",
                machine={"left_out": f"{sum(n.endswith(CAPPED) for n in columns['hardware'])} power-capped rows"},
                tables=tuple(_steps(columns, hardware == folder, file.name)),
            )


def _steps(columns: Mapping[str, list[str]], here: np.ndarray, table: str) -> Iterator[Measurements]:
    value = {name: numbers(columns[name]) for name in (*SHAPE, *TIMES.values())}
    models = np.array(columns["model"])
    for model in sorted(set(models[here])):
        rows = np.flatnonzero(here & (models == model))
        for phase, time in TIMES.items():
            tokens_out = value["token_size"][rows]
            yield Measurements(
                family=STEP,
                dtype="bf16",
                dims={
                    "prompt_tokens": value["prompt_size"][rows],
                    "batch": value["batch_size"][rows],
                    "tokens_out": 0.0 * tokens_out if phase == "prefill" else tokens_out,
                    "tp": value["tensor_parallel"][rows],
                },
                seconds=value[time][rows] * MS,
                lines=rows + 2,
                table=f"{table} {model} {phase}",
                kernels=(f"{model} {phase} step",),
            )
