"""Latent attention out of AIConfigurator's tables: what a layer's attention costs beside its own GEMMs.

The lowering prices the projections (qkv_a, q_b, o, in prefill kv_b) as GEMMs; mla_prefill and mla_decode are the rest.
Module tables time a whole attention layer of DeepSeek-V3: the GEMMs that the library's own fits predict are taken off.
Kernel tables time the attention kernel alone: the two absorbed projections of a decode are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.aiconfigurator import MLA, TableKind, read_table
from simtool.calibration.measurements import Measurements, Refusal
from simtool.hardware.device import Device
from simtool.hardware.fitted import DEFAULT_LAW
from simtool.hardware.fitted_work import MLA_NOPE, MLA_ROPE, MLA_VALUE, mla_absorbed_work

Array = NDArray[np.float64]
GemmSeconds = Callable[[Array, Array, float], Array]  # (m, n, k) -> seconds

# DeepSeek-V3 config.json: hidden_size, q_lora_rank, kv_lora_rank (+ rope is the width of a cached token).
HIDDEN, Q_RANK, KV_RANK = 7168.0, 1536.0, 512.0
# Norms, rotary and cache write that the lowering prices on their own: three launches (LLMServingSim's layers: 2-3 us).
ELEMENTWISE_S = 3 * 2.5e-6
LEAST_SHARE = 0.15  # a module that its GEMMs explain but for this share says nothing about attention

MODULES: Sequence[TableKind] = (
    TableKind(
        family="mla_prefill",
        prefix="mla_context_module_perf",
        dtype_column="kv_cache_dtype",
        columns=MLA | {"seq": "isl", "prefix": "step"},
        keep=lambda columns: np.array(columns["gemm_type"]) == "bfloat16",
    ),
    TableKind(
        family="mla_decode",
        prefix="mla_generation_module_perf",
        dtype_column="kv_cache_dtype",
        columns=MLA | {"kv_len": "step"},
        keep=lambda columns: np.array(columns["gemm_type"]) == "bfloat16",
    ),
)


def read_modules(folder: Path, system: str, library: str, device: Device, gemm: GemmSeconds) -> list[Measurements]:
    """Attention without its GEMMs from a library's module tables; empty where it has none."""
    found = []
    for kind in MODULES:
        for path in sorted((folder / "kernels" / system).glob(f"{kind.prefix}__{library}__*.csv.gz"))[-1:]:
            found += [without_gemms(rows, gemm) for rows in read_table(path, kind, device)]
    return found


def without_gemms(rows: Measurements, gemm: GemmSeconds) -> Measurements:
    """`rows` of whole modules with the GEMMs' and the memory-bound kernels' time taken off."""
    batch, heads = rows.dims["batch"], rows.dims["heads"]
    tokens = batch * rows.dims.get("seq", np.ones(len(batch)))
    wide = np.full(len(batch), Q_RANK + KV_RANK + MLA_ROPE)
    others = gemm(tokens, wide, HIDDEN) + gemm(tokens, heads * (MLA_NOPE + MLA_ROPE), Q_RANK)
    for width in np.unique(heads):  # o has the rank's heads as its inner dimension
        here = heads == width
        others[here] += gemm(tokens[here], np.full(int(here.sum()), HIDDEN), float(width) * MLA_VALUE)
    if rows.family == "mla_prefill":
        others = others + gemm(tokens, heads * (MLA_NOPE + MLA_VALUE), KV_RANK)
    rest = rows.seconds - others - ELEMENTWISE_S
    enough = rest > LEAST_SHARE * rows.seconds
    refused = tuple(
        Refusal(line=int(line), reason="the module's GEMMs explain its time") for line in rows.lines[~enough]
    )
    kept = replace(rows, seconds=rest, kernels=(*rows.kernels, "less fitted bf16 GEMMs")).take(np.flatnonzero(enough))
    return replace(kept, refused=(*rows.refused, *refused))


def with_absorbed(rows: Measurements, device: Device) -> Measurements:
    """Decode kernel `rows` with the two absorbed projections added by the default law."""
    work = mla_absorbed_work(rows.dims)
    extra = 2.0 * DEFAULT_LAW.seconds(work, device.peak_flops("bf16"), device.hbm_bytes_per_s)
    return replace(rows, seconds=rows.seconds + extra, kernels=(*rows.kernels, "absorbed projections by default law"))


def gemm_by(log_seconds: Callable[[Measurements], Array]) -> GemmSeconds:
    """A GEMM clock from a fit's `log_seconds`."""

    def clock(m: Array, n: Array, k: float) -> Array:
        rows = Measurements(
            family="gemm",
            dtype="bf16",
            dims={"m": m, "n": n, "k": np.full(len(m), k)},
            seconds=np.ones(len(m)),
            lines=np.zeros(len(m), dtype=np.intp),
            table="",
            kernels=(),
        )
        return np.asarray(np.exp(log_seconds(rows)))

    return clock
