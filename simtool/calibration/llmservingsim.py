"""Importer of LLMServingSim's layer profiles (casys-kaist/LLMServingSim, MIT): times inside vLLM 0.19, one GPU, bf16.

`profiler/perf/DEVICE/ORG/MODEL/bf16/tpN/` holds dense.csv (layer, tokens, time_us), per_sequence.csv (lm_head) and
attention.csv.gz (prefill_chunk, kv_prefill, n_decode, kv_decode, time_us). Only pure prefill and pure decode rows of
attention are used: the mixed ones are their sum plus scheduling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.measurements import Measurements, numbers, read_columns, refuse_bad_rows
from simtool.hardware.device import Device
from simtool.models.operators import ELEMENTWISE_KINDS
from simtool.units import US

Array = NDArray[np.float64]
DEVICES: Mapping[str, str] = {"RTX4090": "rtx-4090", "RTXPRO6000": "rtx-pro-6000"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledModel:
    """Widths of a profiled model (its Hugging Face config.json); inter 0: the model has experts instead."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inter: int
    vocab: int


MODELS: Mapping[str, ProfiledModel] = {
    "Llama-3.1-8B": ProfiledModel(hidden=4096, heads=32, kv_heads=8, head_dim=128, inter=14336, vocab=128256),
    "Qwen3-32B": ProfiledModel(hidden=5120, heads=64, kv_heads=8, head_dim=128, inter=25600, vocab=151936),
    "Qwen3-30B-A3B-Instruct-2507": ProfiledModel(
        hidden=2048, heads=32, kv_heads=4, head_dim=128, inter=0, vocab=151936
    ),
}


def gemm_widths(model: ProfiledModel, tp: int) -> Mapping[str, tuple[float, float]]:
    """Layer name -> (n, k) of its GEMM on one of tp ranks."""
    query, keys = model.heads * model.head_dim / tp, model.kv_heads * model.head_dim / tp
    return {
        "qkv_proj": (query + 2 * keys, model.hidden),
        "o_proj": (model.hidden, query),
        "gate_up_proj": (2 * model.inter / tp, model.hidden),
        "down_proj": (model.hidden, model.inter / tp),
        "lm_head": (model.vocab / tp, model.hidden),
    }


def elementwise_bytes(model: ProfiledModel, tp: int) -> Mapping[str, float]:
    """Layer name -> bytes read and written a token (bf16; norms fused with the residual sum)."""
    query, keys = model.heads * model.head_dim / tp, model.kv_heads * model.head_dim / tp
    return {
        "act_fn": 2.0 * 3.0 * model.inter / tp,
        "layernorm": 2.0 * 4.0 * model.hidden,
        "final_layernorm": 2.0 * 4.0 * model.hidden,
        "rotary_emb": 2.0 * 2.0 * (query + keys),
        "embedding": 2.0 * 2.0 * model.hidden,
    }


# The kind (of ELEMENTWISE_KINDS) of the memory-bound layers that LLMServingSim's and Vidur's profiles name.
LAYER_KINDS: Mapping[str, str] = {
    "act_fn": "activation",
    "mlp_act": "activation",
    "layernorm": "norm",
    "input_layernorm": "norm",
    "post_layernorm": "norm",
    "final_layernorm": "norm",
    "rotary_emb": "rope",
    "attn_rope": "rope",
    "rope": "rope",
}


def layer_kinds(layers: list[str]) -> Array:
    """Index into ELEMENTWISE_KINDS of each layer name, [N]; other where it is of none."""
    return np.array([float(ELEMENTWISE_KINDS.index(LAYER_KINDS.get(layer, "other"))) for layer in layers])


def read_device(folder: Path, name: str, device: Device) -> list[Measurements]:
    """Everything profiled on one device (a folder name of DEVICES), bad rows refused; one entry a family."""
    parts: dict[str, list[Measurements]] = {}
    for rows in read_tables(folder, name):
        parts.setdefault(rows.family, []).append(refuse_bad_rows(rows, device))
    return [joined(rows) for rows in parts.values()]


def read_tables(folder: Path, name: str) -> Iterator[Measurements]:
    """The tables of the device folder `name` one by one, bad rows still in them."""
    for path in sorted((folder / "profiler" / "perf" / name).glob("*/*/bf16/tp*")):
        model, tp = MODELS.get(path.parts[-3]), int(path.name.removeprefix("tp"))
        if model is not None:
            yield from _read_folder(path, model, tp, f"llmservingsim {name} {path.parts[-3]} tp{tp}")


def joined(parts: list[Measurements]) -> Measurements:
    """Several tables of one family and dtype as one."""
    first = parts[0]
    return Measurements(
        family=first.family,
        dtype=first.dtype,
        dims={name: np.concatenate([p.dims[name] for p in parts]) for name in first.dims},
        seconds=np.concatenate([p.seconds for p in parts]),
        lines=np.concatenate([p.lines for p in parts]),
        table="; ".join(dict.fromkeys(p.table for p in parts)),
        kernels=tuple(sorted({k for p in parts for k in p.kernels})),
        refused=tuple(r for p in parts for r in p.refused),
    )


def _read_folder(path: Path, model: ProfiledModel, tp: int, label: str) -> Iterator[Measurements]:
    dense = read_columns(path / "dense.csv", ("layer", "tokens", "time_us"))
    heads = read_columns(path / "per_sequence.csv", ("layer", "sequences", "time_us"))
    layers, tokens = dense["layer"] + heads["layer"], dense["tokens"] + heads["sequences"]
    times = numbers(dense["time_us"] + heads["time_us"]) * US
    lines = np.concatenate([np.arange(len(dense["layer"])) + 2, np.arange(len(heads["layer"])) + 2])
    yield _gemms(layers, numbers(tokens), times, lines, gemm_widths(model, tp), label)
    yield _elementwise(layers, numbers(tokens), times, lines, elementwise_bytes(model, tp), label)
    yield from _attention(path / "attention.csv.gz", model, tp, label)


def _gemms(
    layers: list[str],
    tokens: Array,
    times: Array,
    lines: NDArray[np.intp],
    widths: Mapping[str, tuple[float, float]],
    label: str,
) -> Measurements:
    rows = np.array([i for i, layer in enumerate(layers) if layer in widths and all(widths[layer])], dtype=np.intp)
    shape = np.array([widths[layers[i]] for i in rows], dtype=np.float64).reshape(-1, 2)
    return Measurements(
        family="gemm",
        dtype="bf16",
        dims={"m": tokens[rows], "n": shape[:, 0], "k": shape[:, 1]},
        seconds=times[rows],
        lines=lines[rows],
        table=label,
        kernels=("vllm 0.19 layer",),
    )


def _elementwise(
    layers: list[str], tokens: Array, times: Array, lines: NDArray[np.intp], sizes: Mapping[str, float], label: str
) -> Measurements:
    rows = np.array([i for i, layer in enumerate(layers) if sizes.get(layer)], dtype=np.intp)
    moved = tokens[rows] * np.array([sizes[layers[i]] for i in rows], dtype=np.float64)
    return Measurements(
        family="elementwise",
        dtype="bf16",
        dims={"bytes": moved, "kind": layer_kinds([layers[i] for i in rows])},
        seconds=times[rows],
        lines=lines[rows],
        table=label,
        kernels=("vllm 0.19 layer",),
    )


def _attention(path: Path, model: ProfiledModel, tp: int, label: str) -> Iterator[Measurements]:
    columns = read_columns(path, ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"))
    table = {name: numbers(column) for name, column in columns.items()}
    for family, rows in (
        ("attention_prefill", np.flatnonzero((table["n_decode"] == 0) & (table["prefill_chunk"] > 0))),
        ("attention_decode", np.flatnonzero((table["prefill_chunk"] == 0) & (table["n_decode"] > 0))),
    ):
        ones = np.ones(len(rows))
        dims = {
            "heads": ones * model.heads / tp,
            "kv_heads": ones * max(1, model.kv_heads // tp),
            "head_dim": ones * model.head_dim,
            "window": 0.0 * ones,
        }
        if family == "attention_prefill":
            dims |= {"batch": ones, "seq": table["prefill_chunk"][rows], "prefix": table["kv_prefill"][rows]}
        else:
            dims |= {"batch": table["n_decode"][rows], "kv_len": table["kv_decode"][rows]}
        yield Measurements(
            family=family,
            dtype="bf16",
            dims=dims,
            seconds=table["time_us"][rows] * US,
            lines=rows + 2,
            table=label,
            kernels=("vllm 0.19 attention layer",),
        )
