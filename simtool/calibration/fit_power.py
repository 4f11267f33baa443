"""Fit the power model to Splitwise's measurements: `python -m simtool.calibration.fit_power --data DIR`.

Each row of splitwise_sim/perf_model_a100.csv is one prompt batch and its decode on a DGX A100: times in ms and the mean
power as a fraction of TDP. The model's mean power weighs both phases by their time. Used are the batch sweep's rows
(512-token prompts and shorter): the prompt-length sweep contradicts it at equal prompt tokens and reads idle power at
8,192 tokens. Peak power is a transient (1.0 where the mean says 0.7) and is not used. Held out: one model and
tensor parallel degree at a time is left out, the shares are fitted to the others and asked for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.collective_samples import read_rows
from simtool.errors import InputError
from simtool.hardware.device import load_device
from simtool.hardware.energy import PowerShares, busy_watts

Array = NDArray[np.float64]
_FILE = ("splitwise_sim", "perf_model_a100.csv")
_FP16_BYTES = 2.0
_LONGEST_PROMPT = 512
# parameters and KV bytes a token, fp16: Llama-2-70B 80 layers x 8 heads x 128, Bloom-176B 70 layers x 112 heads x 128
_MODELS = {"llama2-70b": (68.98e9, 2 * 80 * 8 * 128 * 2.0), "bloom-176b": (176.25e9, 2 * 70 * 112 * 128 * 2.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSamples:
    """Operating points. Arrays of shape [n]; compute and memory: shares of the A100's peaks, by phase.

    prompt_weight: the prompt's share of the run's time. power: measured mean watts. group: model and TP, an index.
    """

    prompt_weight: Array
    prompt_compute: Array
    prompt_memory: Array
    decode_compute: Array
    decode_memory: Array
    power: Array
    group: NDArray[np.int64]
    names: tuple[str, ...]


def read_power(data: Path) -> PowerSamples:
    """The rows that have a power reading and add up (prompt + decode within 10% of end to end)."""
    path = data.joinpath(*_FILE)
    device = load_device("a100-80g")
    points, labels = [], []
    for row in read_rows(path):
        watts = float(row["average_power"]) * device.tdp_w
        prompt_s, token_s, e2e_s = (float(row[key]) * 1e-3 for key in ("prompt_time", "token_time", "e2e_time"))
        decoded = int(row["token_size"]) - 1
        adds_up = abs((prompt_s + decoded * token_s) / e2e_s - 1) <= 0.1
        if watts <= 0 or not adds_up or row["model"] not in _MODELS or int(row["prompt_size"]) > _LONGEST_PROMPT:
            continue
        params, kv_bytes = _MODELS[row["model"]]
        tp, batch, prompt = (int(row[key]) for key in ("tensor_parallel", "batch_size", "prompt_size"))
        peak, bandwidth = device.peak_flops("fp16") * tp, device.hbm_bytes_per_s * tp
        weights = params * _FP16_BYTES
        context = batch * (prompt + decoded / 2) * kv_bytes
        shares = (
            2 * params * batch * prompt / peak / prompt_s,
            weights / bandwidth / prompt_s,
            2 * params * batch / peak / token_s,
            (weights + context) / bandwidth / token_s,
        )
        points.append((prompt_s / (prompt_s + decoded * token_s), *shares, watts))
        labels.append(f"{row['model']} TP{tp}")
    if not points:
        raise InputError(path, "holds no power readings", "give the folder that holds splitwise_sim/")
    names, group = np.unique(labels, return_inverse=True)
    columns = np.asarray(points, dtype=np.float64).T
    fields = ("prompt_weight", "prompt_compute", "prompt_memory", "decode_compute", "decode_memory", "power")
    return PowerSamples(
        **dict(zip(fields, columns, strict=True)), group=group.astype(np.int64), names=tuple(names.tolist())
    )


def mean_watts(samples: PowerSamples, shares: PowerShares) -> Array:
    """The model's mean power [n]."""
    device = load_device("a100-80g")
    prompt = busy_watts(device, samples.prompt_compute, samples.prompt_memory, shares)
    decode = busy_watts(device, samples.decode_compute, samples.decode_memory, shares)
    return np.asarray(samples.prompt_weight * prompt + (1 - samples.prompt_weight) * decode)


def fit_shares(samples: PowerSamples, keep: NDArray[np.bool_] | None = None) -> PowerShares:
    """Shares that minimise the relative error in absolute value (soft), over the kept points."""
    from scipy.optimize import least_squares

    chosen = np.ones(samples.power.size, dtype=bool) if keep is None else keep

    def residuals(x: Array) -> Array:
        shares = PowerShares(base=float(x[0]), compute=float(x[1]), memory=float(x[2]))
        return np.asarray(mean_watts(samples, shares) / samples.power - 1.0)[chosen]

    found = least_squares(residuals, x0=[0.2, 1.0, 0.8], bounds=(0, [1, 5, 5]), loss="soft_l1", f_scale=0.05).x
    return PowerShares(base=float(found[0]), compute=float(found[1]), memory=float(found[2]))


def report_lines(data: Path) -> Iterator[str]:
    """The fitted shares, and the error in-sample and with each model and TP degree left out."""
    samples = read_power(data)
    shares = fit_shares(samples)
    yield f"base {shares.base:.3f}, compute {shares.compute:.3f}, memory {shares.memory:.3f}"
    yield f"{samples.power.size} points"
    inside = np.abs(mean_watts(samples, shares) / samples.power - 1)
    yield f"in-sample: median {np.median(inside):.1%}, p95 {np.quantile(inside, 0.95):.1%}"
    left_out = []
    for index, name in enumerate(samples.names):
        mask = samples.group == index
        error = np.abs(mean_watts(samples, fit_shares(samples, ~mask)) / samples.power - 1)[mask]
        left_out.append(error)
        yield f"  left out {name}: median {np.median(error):.1%}, worst {error.max():.1%}"
    error = np.concatenate(left_out)
    yield f"held-out: median {np.median(error):.1%}, p95 {np.quantile(error, 0.95):.1%}"


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="fit_power", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds splitwise_sim/")
    options = parser.parse_args(argv)
    try:
        for line in report_lines(options.data):
            print(line)
    except InputError as error:
        parser.exit(2, f"ERROR {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
