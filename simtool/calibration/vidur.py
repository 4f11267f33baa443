"""Importer of Vidur's layer profiles (microsoft/vidur, MIT): mlp.csv.gz a model, medians in milliseconds, fp16.

Used for what nothing else covers: GEMMs, norms, rotary, activation and residual sums of the A40. (The A100's GEMMs have
a newer table, and its memory-bound medians scatter by a factor of two.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.llmservingsim import joined, layer_kinds
from simtool.calibration.measurements import Measurements, numbers, read_columns, refuse_bad_rows
from simtool.hardware.device import Device
from simtool.units import MS

Array = NDArray[np.float64]
DEVICES: Mapping[str, str] = {"a40": "a40"}
WIDTHS = ("n_head", "n_kv_head", "n_embd", "n_expanded_embd", "num_tokens", "num_tensor_parallel_workers")
GEMMS = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
ELEMENTWISE = ("input_layernorm", "attn_rope", "mlp_act", "add")


def read_device(folder: Path, name: str, device: Device) -> list[Measurements]:
    """The "gemm" and "elementwise" rows of a device (a folder name of DEVICES), bad rows refused."""
    parts: dict[str, list[Measurements]] = {}
    for rows in read_layers(folder / "data" / "profiling" / "compute" / name):
        parts.setdefault(rows.family, []).append(refuse_bad_rows(rows, device))
    return [joined(rows) for rows in parts.values()]


def read_layers(folder: Path) -> Iterator[Measurements]:
    """The layers of every model under a device's folder one by one, bad rows still in them."""
    for path in sorted([*folder.glob("*/*/mlp.csv"), *folder.glob("*/*/mlp.csv.gz")]):
        yield from _read_table(path, f"vidur {folder.name} {path.parts[-2]}")


def _read_table(path: Path, label: str) -> Iterator[Measurements]:
    times = tuple(f"time_stats.{layer}.median" for layer in GEMMS + ELEMENTWISE)
    needed = (*WIDTHS, "use_gated_mlp", *(time for time in times if "layernorm" not in time and "add" not in time))
    columns = read_columns(path, needed)
    width = {name: numbers(columns[name]) for name in WIDTHS}
    branches = np.where(np.array(columns["use_gated_mlp"]) == "True", 2.0, 1.0)
    shapes = _gemm_shapes(width, branches)
    sizes = _elementwise_bytes(width, branches)
    lines = np.arange(len(branches)) + 2
    for layer in (*GEMMS, *ELEMENTWISE):
        time = f"time_stats.{layer}.median"
        if time not in columns:
            continue
        seconds = numbers(columns[time]) * MS
        there = np.flatnonzero(np.array(columns[time]) != "")  # a layer that the model lacks is left empty
        kind = layer_kinds([layer] * len(there))
        dims = {"bytes": sizes[layer][there], "kind": kind} if layer in sizes else {}
        if layer in shapes:
            n, k = shapes[layer]
            dims = {"m": width["num_tokens"][there], "n": n[there], "k": k[there]}
        yield Measurements(
            family="gemm" if layer in shapes else "elementwise",
            dtype="bf16",
            dims=dims,
            seconds=seconds[there],
            lines=lines[there],
            table=label,
            kernels=("torch layer",),
        )


def _gemm_shapes(width: Mapping[str, Array], branches: Array) -> Mapping[str, tuple[Array, Array]]:
    """Layer -> (n, k) a rank. KV heads below one a rank are replicated."""
    tp, hidden, inner = width["num_tensor_parallel_workers"], width["n_embd"], width["n_expanded_embd"]
    head = hidden / width["n_head"]
    query, keys = width["n_head"] * head / tp, np.maximum(width["n_kv_head"] / tp, 1.0) * head
    return {
        "attn_pre_proj": (query + 2.0 * keys, hidden),
        "attn_post_proj": (hidden, query),
        "mlp_up_proj": (branches * inner / tp, hidden),
        "mlp_down_proj": (hidden, inner / tp),
    }


def _elementwise_bytes(width: Mapping[str, Array], branches: Array) -> Mapping[str, Array]:
    """Layer -> bytes read and written by the call (fp16)."""
    tp, hidden, tokens = width["num_tensor_parallel_workers"], width["n_embd"], width["num_tokens"]
    head = hidden / width["n_head"]
    rotated = (width["n_head"] / tp + np.maximum(width["n_kv_head"] / tp, 1.0)) * head
    return {
        "input_layernorm": 2.0 * tokens * 2.0 * hidden,
        "attn_rope": 2.0 * tokens * 2.0 * rotated,
        "mlp_act": 2.0 * tokens * (branches + 1.0) * width["n_expanded_embd"] / tp,
        "add": 2.0 * tokens * 3.0 * hidden,
    }
