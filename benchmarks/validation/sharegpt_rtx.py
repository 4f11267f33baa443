"""Llama-3.1-8B on one RTX 4090 and one RTX PRO 6000 under vLLM 0.19 (llmservingsim/bench), 300 ShareGPT requests.

    python -m benchmarks.validation.sharegpt_rtx

The same as `simtool validate --measured FOLDER --model llama-3.1-8b --devices 1xrtx-4090`: arrivals, lengths and engine
settings are those of each run, the number of KV blocks too where the run recorded it. Beside each error stands that of
LLMServingSim, which replays per-layer times measured on the same machine (validation/summary.txt). Our GEMM and
attention fits of the two devices come from the same layer tables; nothing was fitted on these runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.validation.comparison import Row, arguments, data_folder, errors_text
from simtool.asking import plan_of
from simtool.calibration.validation.measurement import Measurement
from simtool.calibration.validation.reading import read_measurement
from simtool.calibration.validation.validate import validate
from simtool.plan import Plan
from simtool.scenario import load_scenario
from simtool.workload import Workload

DEVICES = {"RTX4090": "rtx-4090", "RTXPRO6000": "rtx-pro-6000"}
KINDS = {"mean": "Mean", "median": "Median", "p90": "P90", "p95": "P95", "p99": "P99"}
NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2el": "Latency"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """A replayed trace, and the other simulator's values of it: metric → milliseconds."""

    measurement: Measurement
    workload: Workload
    plan: Plan
    theirs: dict[str, float]


def read_run(data: Path, name: str) -> MeasuredRun:
    """The run on the device of that folder name. Latency counts from when the engine queued the request."""
    folder = data / "llmservingsim" / "bench" / "examples" / name / "Llama-3.1-8B"
    measurement = read_measurement(folder)
    assert measurement.workload is not None
    engine = {f"engine.{key}": value for key, value in measurement.engine.items()}
    scenario = load_scenario(values={"model": "llama-3.1-8b", "devices": f"1x{DEVICES[name]}", **engine})
    return MeasuredRun(
        measurement=measurement,
        workload=measurement.workload,
        plan=plan_of(scenario),
        theirs=read_theirs(folder / "validation" / "summary.txt"),
    )


def read_theirs(path: Path) -> dict[str, float]:
    """ "TTFT Mean" → milliseconds of the other simulator."""
    pattern = re.compile(r"^(TTFT|TPOT|Latency) (Mean|Median|P\d+)\s+([\d.]+)\s+([\d.]+)")
    found = (pattern.match(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {f"{match[1]} {match[2]}": float(match[4]) for match in found if match}


def compare(run: MeasuredRun, name: str) -> list[Row]:
    """Statistics of TTFT, TPOT and latency; split "simtool" is ours, "LLMServingSim" theirs."""
    found = {row.key: row for row in validate(run.plan, run.measurement, run.workload).metrics}
    keys = {f"{NAMES[metric]} {KINDS[kind]}": f"{kind}_{metric}_ms" for metric in NAMES for kind in KINDS}
    ours = {metric: found[key].predicted for metric, key in keys.items()}
    rows = []
    for split, values in (("simtool", ours), ("LLMServingSim", run.theirs)):
        for metric, value in values.items():
            measured = found[keys[metric]].measured
            rows.append(Row(name=name, quantity=metric, predicted=value, measured=measured, split=split))
    return rows


def table(rows: list[Row]) -> str:
    """One line a metric: measured, ours, theirs."""
    lines = [f"{'metric, ms':<18} {'measured':>10} {'simtool':>10} {'error':>7} {'LLMServingSim':>14} {'error':>7}"]
    theirs = {row.quantity: row for row in rows if row.split != "simtool"}
    for row in (row for row in rows if row.split == "simtool"):
        other = theirs[row.quantity]
        ours = f"{row.predicted:>10.1f} {row.error:>+7.1%}"
        lines.append(f"{row.quantity:<18} {row.measured:>10.1f} {ours} {other.predicted:>14.1f} {other.error:>+7.1%}")
    return "\n".join(lines)


def main() -> None:
    """Print the table of each device and the errors over it."""
    data = data_folder(arguments(__doc__.splitlines()[0]))
    for name in DEVICES:
        rows = compare(read_run(data, name), name)
        print(f"\n{name}\n{table(rows)}")
        kinds = [replace(row, quantity=row.quantity.split()[0]) for row in rows]
        print(errors_text(kinds))


if __name__ == "__main__":
    main()
