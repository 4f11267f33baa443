"""Importer of LLMServingSim's profiles as MeasuredSets: perf/ in microseconds, v0/ in nanoseconds and milliseconds.

skew.csv times decode batches of unequal lengths: its pure rows become decode rows of their own table, with kv_len (the
mean) and one more dim, kv_max. Each gives three: all at the mean, all at the longest, and as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simtool.calibration import llmservingsim, llmservingsim_v0
from simtool.calibration.importing_rows import choose_folders
from simtool.calibration.llmservingsim import MODELS, ProfiledModel
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.measurements import Measurements, numbers, read_columns
from simtool.errors import InputError
from simtool.units import US

SKEW = ("regime", "n", "kv_big", "kv_mean", "t_mean_us", "t_max_us", "t_skew_us")
LEFT_OUT = "attention and skew rows beside a prefill chunk; moe.csv: which experts are read is not told"


def read_llmservingsim(path: Path, device: str | None, library: str | None) -> Iterator[MeasuredSet]:
    """One unchecked set a device. library: what to call the kernels, "vllm" unless given."""
    if not path.is_dir():
        raise InputError(path, "is no folder", "LLMServingSim's repository")
    newer, older = path / "profiler" / "perf", path / "profiler" / "v0" / "perf_models"
    names = {**llmservingsim.DEVICES, **llmservingsim_v0.NAMES}
    found = {folder.name for root in (newer, older) for folder in root.glob("*") if folder.is_dir()}
    for folder, name in choose_folders(found, names, device, path).items():
        tables = [*llmservingsim.read_tables(path, folder), *_skewed(newer / folder)]
        old = [] if tables else list(llmservingsim_v0.read_tables(older / folder))
        yield MeasuredSet(
            device=name,
            library=library or "vllm",
            version="0.19.0" if tables else "llmservingsim-v0",
            source="casys-kaist/LLMServingSim layer profiles",
            licence="MIT",
            machine={"left_out": LEFT_OUT if tables else llmservingsim_v0.LEFT_OUT},
            tables=tuple(tables or old),
        )


def _skewed(folder: Path) -> Iterator[Measurements]:
    for path in sorted([*folder.glob("*/*/bf16/tp*/skew.csv"), *folder.glob("*/*/bf16/tp*/skew.csv.gz")]):
        model, tp = MODELS.get(path.parts[-4]), int(path.parts[-2].removeprefix("tp"))
        if model is not None:
            yield _skew_table(path, model, tp, f"llmservingsim {folder.name} {path.parts[-4]} tp{tp} skew")


def _skew_table(path: Path, model: ProfiledModel, tp: int, label: str) -> Measurements:
    columns = read_columns(path, SKEW)
    rows = np.flatnonzero(np.array(columns["regime"]) == "pure")
    value = {name: numbers(columns[name])[rows] for name in SKEW[1:]}
    ones = np.ones(3 * len(rows))
    mean, longest = value["kv_mean"], value["kv_big"]
    return Measurements(
        family="attention_decode",
        dtype="bf16",
        dims={
            "heads": ones * model.heads / tp,
            "kv_heads": ones * max(1, model.kv_heads // tp),
            "head_dim": ones * model.head_dim,
            "window": 0.0 * ones,
            "batch": np.tile(value["n"], 3),
            "kv_len": np.concatenate([mean, longest, mean]),
            "kv_max": np.concatenate([mean, longest, longest]),
        },
        seconds=np.concatenate([value["t_mean_us"], value["t_max_us"], value["t_skew_us"]]) * US,
        lines=np.tile(rows + 2, 3),
        table=label,
        kernels=("vllm 0.19 attention layer",),
    )
