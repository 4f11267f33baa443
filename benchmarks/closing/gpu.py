"""Predicted against measured on a GPU: two models at three loads, three sizes of expert offload, overlap on and off.

`python -m benchmarks.closing.gpu --device h200 --budget 8m --out DIR`: some twenty-five minutes on an H200. It
calibrates, runs each case with `simtool execute`, and validates it; DIR/summary.json has every error with the
environment. `--smoke` runs the same script on this CPU with small models: it shows that it works, and no accuracy.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.closing.loop import MODELS, simtool
from simtool.calibration.executor.execution_file import load_execution
from simtool.calibration.validation.reading import read_measurement
from simtool.calibration.validation.validate import plan_for, validate
from simtool.json_text import json_text

HEADLINES = ("mean_ttft_ms", "mean_tpot_ms", "mean_e2el_ms", "output_throughput")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """models: name → its flags. rates: requests a second. cached: experts a layer that stay on the device."""

    devices: str
    on: str
    models: dict[str, list[str]]
    mixture: str
    load: list[str]
    rates: tuple[float, ...]
    cached: tuple[int, ...]
    calibrate: list[str]


def gpu(device: str) -> Setting:
    """Llama-3.1-8B whole and Qwen3-30B-A3B with as many layers as 80 GB hold beside the cache."""
    return Setting(
        devices=f"1x{device}",
        on="cuda",
        models={"llama-3.1-8b": [], "qwen3-30b-a3b": ["--layers", "40"]},
        mixture="qwen3-30b-a3b",
        load=["--num-prompts", "200", "--input-len", "uniform:128:2048", "--output-len", "uniform:32:256"],
        rates=(2.0, 6.0, 12.0),
        cached=(16, 64, 112),
        calibrate=["--device", "cuda", "--models", "llama-3.1-8b,qwen3-30b-a3b", "-tp", "1", "--dtypes", "bf16"],
    )


def smoke() -> Setting:
    """The same on this CPU, small and quick."""
    dense, mixture = MODELS["dense"], MODELS["moe"]
    return Setting(
        devices="1xcpu",
        on="cpu",
        models={dense: [], mixture: ["--layers", "2"]},
        mixture=mixture,
        load=["--num-prompts", "8", "--input-len", "uniform:16:64", "--output-len", "uniform:4:8"],
        rates=(4.0, 16.0),
        cached=(2, 4),
        calibrate=["--device", "cpu", "--models", f"{dense},{mixture}", "-tp", "1", "--dtypes", "fp32"],
    )


def measured(
    setting: Setting, profile: Path, model: str, rate: float, folder: Path, words: list[str]
) -> dict[str, object]:
    """Run a case and compare it. Returns its line of the summary."""
    ask = ["--model", model, "--devices", setting.devices, "--kernel-library", "torch", "--profile", str(profile)]
    load = [*setting.load, "--request-rate", str(rate), "--no-async-scheduling", "--on", setting.on]
    simtool("execute", *ask, *load, *setting.models[model], *words, "--out", str(folder))
    simtool("validate", "--measured", str(folder), "--out", str(folder / "report"))
    run = read_measurement(folder)
    found = validate(plan_for(run, None), run, run.workload)
    rows = {row.key: row for row in found.metrics}
    errors = {key: {"predicted": rows[key].predicted, "measured": rows[key].measured} for key in HEADLINES}
    steps = {"median": found.overall.median, "p95": found.overall.p95} if found.overall else None
    about = {"model": model, "rate": rate, "flags": words, "schedule": found.divergence or "identical"}
    return {**about, "metrics": errors, "steps": steps}


def gain(folder: Path, base: Path) -> float:
    """How much shorter the median decode step is than the base case's."""
    seconds = []
    for place in (folder, base):
        steps = load_execution(place).result.steps
        alone = steps["prefill_tokens"] == 0
        seconds.append(float(np.median((steps["end_s"] - steps["start_s"])[alone])))
    return 1.0 - seconds[0] / seconds[1]


def main() -> int:
    """Calibrate, run every case, write the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="h200", help="catalogue name of the GPU")
    parser.add_argument("--budget", default="8m", help="of the calibration")
    parser.add_argument("--profile", type=Path, help="a profile of this machine, instead of calibrating")
    parser.add_argument("--smoke", action="store_true", help="small, on this CPU")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    setting = smoke() if options.smoke else gpu(options.device)
    profile = options.profile
    if profile is None:
        simtool("calibrate", *setting.calibrate, "--budget", options.budget, "--out", str(options.out / "calibration"))
        profile = next((options.out / "calibration").glob("*__torch__*.json"))
    lines = []
    for model in setting.models:
        for rate in setting.rates:
            name = f"{Path(model).parent.name or model}-{rate:g}"
            lines.append(measured(setting, profile, model, rate, options.out / name, []))
    base = options.out / f"{Path(setting.mixture).parent.name or setting.mixture}-{setting.rates[0]:g}"
    cases = {f"offload-{count}": ["--offload", f"lru,slots={count}"] for count in setting.cached}
    for name, words in {**cases, "overlap": ["--overlap", "shared-experts"]}.items():
        line = measured(setting, profile, setting.mixture, setting.rates[0], options.out / name, words)
        lines.append({**line, "measured_gain": gain(options.out / name, base)})
    environment = dict(load_execution(base).environment)
    (options.out / "summary.json").write_text(json_text({"environment": environment, "cases": lines}), encoding="utf-8")
    print(f"{options.out / 'summary.json'} written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
