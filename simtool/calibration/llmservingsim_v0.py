"""Importer of LLMServingSim's older profiles (casys-kaist/LLMServingSim, MIT): torch layers, fp16 or bf16.

profiler/v0/perf_models/DEVICE/ORG/MODEL/tpN/ holds layers.csv[.gz] (latency in nanoseconds) and attention.csv[.gz]
(milliseconds). Its kv_cache_size counts the chunk itself: a prefill chunk of 32 in a cache of 32 to 1,536 takes as long
as one decode over the same cache, within 1%.

Its decode rows are left out. They cannot be right: on the A6000 a batch of 57 takes less than a batch of 1, and a batch
of 85 with 4,096 tokens each reads 13 TB/s from a 0.77 TB/s memory, so that most of the cache was never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.llmservingsim import MODELS, ProfiledModel, layer_kinds
from simtool.calibration.measurements import Measurements, numbers, read_columns
from simtool.calibration.torch_attention import read_attention

Array = NDArray[np.float64]
NS = 1e-9
LEFT_OUT = "v0 decode attention: faster than any memory; expert layers: the routing is not told"
NAMES: Mapping[str, str] = {"A6000": "a6000", "RTX3090": "rtx-3090", "H100": "h100-sxm"}
OLDER_MODELS: Mapping[str, ProfiledModel] = {
    "Llama-3.1-8B": MODELS["Llama-3.1-8B"],
    "Phi-mini-MoE-instruct": ProfiledModel(hidden=4096, heads=32, kv_heads=8, head_dim=128, inter=0, vocab=32064),
}


def read_tables(folder: Path) -> Iterator[Measurements]:
    """The tables of a device's folder one by one, bad rows still in them."""
    for path in sorted(folder.glob("*/*/tp*")):
        model, tp = OLDER_MODELS.get(path.parts[-2]), int(path.name.removeprefix("tp"))
        if model is None:
            continue
        label = f"llmservingsim v0 {folder.name} {path.parts[-2]} tp{tp}"
        for table in sorted([*path.glob("layers.csv"), *path.glob("layers.csv.gz")]):
            yield from _layers(table, model, tp, label + " layers")
        for table in sorted([*path.glob("attention.csv"), *path.glob("attention.csv.gz")]):
            attention = read_attention(table, label + " attention", cache_holds_chunk=True)
            yield from (rows for rows in attention if rows.family == "attention_prefill")


def gemm_widths(model: ProfiledModel, tp: int) -> Mapping[str, tuple[float, float]]:
    """Layer name -> (n, k) of its GEMM on one of tp ranks."""
    query, keys = model.heads * model.head_dim / tp, model.kv_heads * model.head_dim / tp
    dense = {
        "gate_proj": (model.inter / tp, model.hidden),
        "up_proj": (model.inter / tp, model.hidden),
        "down_proj": (model.hidden, model.inter / tp),
    }
    return {
        "q_proj": (query, model.hidden),
        "k_proj": (keys, model.hidden),
        "v_proj": (keys, model.hidden),
        "o_proj": (model.hidden, query),
        "lm_head": (model.vocab / tp, model.hidden),
        **(dense if model.inter else {}),
    }


def elementwise_bytes(model: ProfiledModel, tp: int) -> Mapping[str, float]:
    """Layer name -> bytes read and written a token; norms without a fused sum, as the layers are timed alone."""
    query, keys = model.heads * model.head_dim / tp, model.kv_heads * model.head_dim / tp
    norm = 2.0 * 2.0 * model.hidden
    sizes = dict.fromkeys(("input_layernorm", "post_layernorm", "final_layernorm", "embedding"), norm)
    return sizes | {"rope": 2.0 * 2.0 * (query + keys), "act_fn": 2.0 * 3.0 * model.inter / tp}


def _layers(path: Path, model: ProfiledModel, tp: int, label: str) -> Iterator[Measurements]:
    columns = read_columns(path, ("layer_name", "input", "kv_cache", "latency(ns)"))
    tokens, seconds = numbers(columns["input"]), numbers(columns["latency(ns)"]) * NS
    widths, sizes = gemm_widths(model, tp), elementwise_bytes(model, tp)
    for layer in dict.fromkeys(columns["layer_name"]):
        rows = np.flatnonzero(np.array(columns["layer_name"]) == layer)
        family, dims = "gemm", {"m": tokens[rows]}
        if layer in widths:
            n, k = widths[layer]
            dims |= {"n": np.full(len(rows), n), "k": np.full(len(rows), k)}
        elif sizes.get(layer):
            family, dims = (
                "elementwise",
                {"bytes": tokens[rows] * sizes[layer], "kind": layer_kinds([layer] * len(rows))},
            )
        elif layer == "attn":
            family, dims = "attention_prefill", _attention(model, tp, tokens[rows], numbers(columns["kv_cache"])[rows])
        else:
            continue  # experts and their gate
        yield Measurements(
            family=family,
            dtype="bf16",
            dims=dims,
            seconds=seconds[rows],
            lines=rows + 2,
            table=f"{label} {layer}",
            kernels=("torch layer",),
        )


def _attention(model: ProfiledModel, tp: int, tokens: Array, cached: Array) -> dict[str, Array]:
    ones = np.ones(len(tokens))
    return {
        "batch": ones,
        "heads": ones * model.heads / tp,
        "kv_heads": ones * max(1, model.kv_heads // tp),
        "head_dim": ones * model.head_dim,
        "window": 0.0 * ones,
        "seq": tokens,
        "prefix": cached,
    }
