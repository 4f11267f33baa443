"""Fit how much decode attention slows down beside prefill chunks: `python -m simtool.calibration.fit_mixed_attention`.

LLMServingSim's attention tables (casys-kaist/LLMServingSim, MIT; vLLM 0.19, FlashAttention 2) hold steps of one prefill
chunk and n decodes, and both parts alone. The law is t = prefill + g^a x decode with g query heads a KV head. The
exponent a is fitted on the models with g = 8 (Qwen3) and predicts those with g = 4 (Llama-3.1-8B), held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.llmservingsim import DEVICES, MODELS
from simtool.calibration.measurements import numbers, read_columns
from simtool.errors import InputError

Array = NDArray[np.float64]
FITTED_GROUP = 8
MIN_CHUNK, MIN_DECODES = 256, 8  # smaller parts hide behind the larger one instead of adding to it


def mixed_rows(path: Path) -> tuple[Array, Array, Array]:
    """(together, prefill alone, decode alone) seconds of every mixed row whose parts were measured too."""
    columns = read_columns(path, ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"))
    chunk, cached, decodes, kv, us = (numbers(columns[name]) for name in columns)
    prefill = {(p, c): t for p, c, n, t in zip(chunk, cached, decodes, us, strict=True) if n == 0}
    decode = {(n, k): t for p, n, k, t in zip(chunk, decodes, kv, us, strict=True) if p == 0}
    found = [
        (t, prefill[p, c], decode[n, k])
        for p, c, n, k, t in zip(chunk, cached, decodes, kv, us, strict=True)
        if p >= MIN_CHUNK and n >= MIN_DECODES and (p, c) in prefill and (n, k) in decode
    ]
    together, before, after = np.array(found, np.float64).reshape(-1, 3).T * 1e-6
    return together, before, after


def read_groups(folder: Path) -> dict[tuple[str, int], tuple[Array, Array, Array]]:
    """(label, query heads a KV head) → rows of every profiled model. Raises InputError where there is none."""
    found = {}
    for name in DEVICES:
        for path in sorted((folder / "profiler" / "perf" / name).glob("*/*/bf16/tp*/attention.csv.gz")):
            model, tp = path.parts[-4], int(path.parts[-2].removeprefix("tp"))
            if model in MODELS:
                heads, kv_heads = MODELS[model].heads / tp, max(1.0, MODELS[model].kv_heads / tp)
                found[f"{name} {model} tp{tp}", int(heads / kv_heads)] = mixed_rows(path)
    if not found:
        raise InputError(str(folder), "has no attention tables under profiler/perf")
    return found


def error(rows: tuple[Array, Array, Array], factor: float) -> float:
    """Median relative error of prefill + factor x decode."""
    together, prefill, decode = rows
    return float(np.median(np.abs((prefill + factor * decode) / together - 1.0)))


def fit_exponent(groups: dict[tuple[str, int], tuple[Array, Array, Array]]) -> float:
    """The exponent, in steps of 0.05, with the least mean error over the tables of the fitted group."""
    candidates = np.arange(0.0, 1.01, 0.05)
    tables = [rows for (_, group), rows in groups.items() if group == FITTED_GROUP]
    errors = [np.mean([error(rows, FITTED_GROUP**exponent) for rows in tables]) for exponent in candidates]
    return float(candidates[int(np.argmin(errors))])


def main() -> None:
    """Print the exponent and the errors with and without it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with llmservingsim/")
    groups = read_groups(parser.parse_args().data / "llmservingsim")
    exponent = fit_exponent(groups)
    print(f"exponent {exponent:.2f}, fitted on tables with {FITTED_GROUP} query heads a KV head")
    print(f"{'table':<46} {'heads':>5} {'rows':>6} {'plain sum':>10} {'with law':>9} split")
    for (label, group), rows in groups.items():
        split = "in-sample" if group == FITTED_GROUP else "held out"
        errors = f"{error(rows, 1.0):>10.1%} {error(rows, group**exponent):>9.1%}"
        print(f"{label:<46} {group:>5} {len(rows[0]):>6} {errors} {split}")


if __name__ == "__main__":
    main()
