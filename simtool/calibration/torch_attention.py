"""attention.csv of Vidur and of LLMServingSim's v0 profiler (the same code and header): medians in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.measurements import Measurements, numbers, read_columns
from simtool.units import MS

Array = NDArray[np.float64]
TIMES = {
    "attention_prefill": "time_stats.attn_prefill.median",
    "attention_decode": "time_stats.attn_decode.median",
}
WIDTHS = ("n_embd", "n_q_head", "n_kv_head", "num_tensor_parallel_workers")
SHAPE = ("batch_size", "prefill_chunk_size", "kv_cache_size")


def read_attention(path: Path, label: str, cache_holds_chunk: bool) -> Iterator[Measurements]:
    """Prefill and decode rows, unchecked. cache_holds_chunk: kv_cache_size counts the chunk itself (v0), or only the
    tokens before it (Vidur)."""
    columns = read_columns(path, (*TIMES.values(), *WIDTHS, *SHAPE, "is_prefill"))
    value = {name: numbers(columns[name]) for name in (*WIDTHS, *SHAPE, *TIMES.values())}
    prefill = np.array([text.strip().lower() in ("true", "1") for text in columns["is_prefill"]], dtype=np.bool_)
    tp = value["num_tensor_parallel_workers"]
    dims = {
        "batch": value["batch_size"],
        "heads": value["n_q_head"] / tp,
        "kv_heads": np.maximum(value["n_kv_head"] / tp, 1.0),
        "head_dim": value["n_embd"] / value["n_q_head"],
        "window": 0.0 * tp,
    }
    chunk, cached = value["prefill_chunk_size"], value["kv_cache_size"]
    before = cached - chunk if cache_holds_chunk else cached
    for family, extra in (
        ("attention_prefill", {"seq": chunk, "prefix": before}),
        ("attention_decode", {"kv_len": cached}),
    ):
        rows = np.flatnonzero(prefill == (family == "attention_prefill"))
        if len(rows):
            yield Measurements(
                family=family,
                dtype="bf16",
                dims={name: column[rows] for name, column in (dims | extra).items()},
                seconds=value[TIMES[family]][rows] * MS,
                lines=rows + 2,
                table=label,
                kernels=tuple(sorted(set(columns.get("attention_backend", ["attention layer"])))),
            )
