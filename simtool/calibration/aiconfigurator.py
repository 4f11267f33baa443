"""Importer of AIConfigurator's kernel tables (ai-dynamo/aiconfigurator, Apache-2.0; csv.gz, latency in milliseconds).

One row is one operator call on one GPU. A table holds several dtypes; each becomes Measurements of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.measurements import Measurements, numbers, read_columns, refuse_bad_rows
from simtool.hardware.device import Device
from simtool.hardware.fitted_work import ROUTING
from simtool.units import MS

Array = NDArray[np.float64]
Columns = Mapping[str, list[str] | Array]  # text of a csv; a parquet table has its numbers as floats

SYSTEMS: Mapping[str, str] = {"h200_sxm": "h200", "a100_sxm": "a100-80g", "l40s": "l40s"}
DTYPES: Mapping[str, str] = {
    "bfloat16": "bf16",
    "float16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "int8_wo": "int8_wo",
    "int4_wo": "int4",
    "sq": "int8",
    "w4a16_mxfp4": "mxfp4",
    "nvfp4": "nvfp4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableKind:
    """How a table's columns become dims. dtype_column names the storage dtype; keep says which rows are of use."""

    family: str
    prefix: str
    dtype_column: str
    columns: Mapping[str, str]
    keep: Callable[[Columns], NDArray[np.bool_]] = lambda columns: np.ones(len(columns["latency"]), dtype=np.bool_)


def _expert_rows(columns: Columns) -> NDArray[np.bool_]:
    """The assumed routing, gated experts only: the tables do not say which rows lack a gate, so the shapes of the two
    published families without one (Nemotron 3: 1,856-wide, or 22 of 512 experts) are left out."""
    routing = np.array(columns["distribution"]) == ROUTING
    ungated = (numbers(columns["inter_size"]) == 1856) | (numbers(columns["topk"]) == 22)
    kernels = np.array(["nongated" in name for name in columns["kernel_source"]], dtype=np.bool_)
    return np.asarray(routing & ~ungated & ~kernels)


ATTENTION = {
    "batch": "batch_size",
    "heads": "num_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "window": "window_size",
}
MLA = {"batch": "batch_size", "heads": "num_heads"}
TABLES: tuple[TableKind, ...] = (
    TableKind(family="gemm", prefix="gemm_perf", dtype_column="gemm_dtype", columns={c: c for c in "mnk"}),
    TableKind(
        family="moe",
        prefix="moe_perf",
        dtype_column="moe_dtype",
        columns={
            "tokens": "num_tokens",
            "hidden": "hidden_size",
            "inter": "inter_size",
            "top_k": "topk",
            "num_experts": "num_experts",
            "moe_tp": "moe_tp_size",
            "moe_ep": "moe_ep_size",
        },
        keep=_expert_rows,
    ),
    TableKind(
        family="attention_prefill",
        prefix="context_attention_perf",
        dtype_column="kv_cache_dtype",
        columns=ATTENTION | {"seq": "isl", "prefix": "step"},
        keep=lambda columns: np.array(columns["attn_dtype"]) == "bfloat16",
    ),
    TableKind(
        family="attention_decode",
        prefix="generation_attention_perf",
        dtype_column="kv_cache_dtype",
        columns=ATTENTION | {"kv_len": "step"},
    ),
    TableKind(
        family="mla_prefill",
        prefix="context_mla_perf",
        dtype_column="kv_cache_dtype",
        columns=MLA | {"seq": "isl", "prefix": "step"},
    ),
    TableKind(
        family="mla_decode",
        prefix="generation_mla_perf",
        dtype_column="kv_cache_dtype",
        columns=MLA | {"kv_len": "step"},
    ),
)


def find_tables(folder: Path, system: str, library: str) -> list[tuple[TableKind, Path]]:
    """The tables of a system and library under `folder` (the data set's root), in a fixed order."""
    found = []
    for kind in TABLES:
        paths = sorted((folder / "kernels" / system).glob(f"{kind.prefix}__{library}__*.csv.gz"))
        found += [(kind, path) for path in paths[-1:]]
    return found


def read_table(path: Path, kind: TableKind, device: Device) -> list[Measurements]:
    """All dtypes of one table, bad rows refused. InputError when the file is not such a table."""
    rows = table_rows(read_columns(path, needed_columns(kind)), kind, path.name.removesuffix(".csv.gz"))
    return [refuse_bad_rows(measured, device) for measured in rows]


def needed_columns(kind: TableKind) -> tuple[str, ...]:
    """Columns that a table of `kind` cannot lack."""
    optional = {"window_size"}
    return (*(c for c in kind.columns.values() if c not in optional), kind.dtype_column, "latency")


def table_rows(columns: Columns, kind: TableKind, name: str, first_line: int = 2) -> list[Measurements]:
    """All dtypes of a table's `columns`, bad rows still in it; first_line: where its first row stands."""
    kept = kind.keep(columns)
    dtypes = np.array(columns[kind.dtype_column])
    dims = {name: _column(columns, source) for name, source in kind.columns.items()}
    if "kv_len" in dims:  # the context so far is isl + step tokens
        dims["kv_len"] = dims["kv_len"] + numbers(columns["isl"])
    seconds = numbers(columns["latency"]) * MS
    tables = []
    for raw in sorted(set(dtypes[kept])):
        rows = np.flatnonzero(kept & (dtypes == raw))
        if raw not in DTYPES:
            continue
        measured = Measurements(
            family=kind.family,
            dtype=DTYPES[raw],
            dims={name: column[rows] for name, column in dims.items()},
            seconds=seconds[rows],
            lines=rows + first_line,
            table=name,
            kernels=tuple(sorted({str(columns["kernel_source"][r]) for r in rows})),
        )
        tables.append(measured)
    return tables


def _column(columns: Columns, name: str) -> Array:
    if name in columns:
        return numbers(columns[name])
    return np.zeros(len(columns["latency"]))  # tables older than sliding windows have no window_size
