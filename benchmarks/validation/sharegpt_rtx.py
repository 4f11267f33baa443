"""Llama-3.1-8B on one RTX 4090 and one RTX PRO 6000 under vLLM 0.19 (llmservingsim/bench), 300 ShareGPT requests.

    python -m benchmarks.validation.sharegpt_rtx

Arrivals, lengths and engine settings are those of each run; the number of KV blocks where the run recorded it.
Beside each error stands that of LLMServingSim, which replays per-layer times measured on the same machine
(validation/summary.txt). Our GEMM and attention fits of the two devices come from the same layer tables; nothing was
fitted on these runs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.validation.comparison import Row, arguments, data_folder, errors_text
from simtool.metrics import request_latencies
from simtool.plan import KvPolicy, Plan, Pool, Scheduler
from simtool.run import simulate
from simtool.workload import Workload, make_workload

DEVICES = {"RTX4090": "rtx-4090", "RTXPRO6000": "rtx-pro-6000"}
STATISTICS = ("Mean", "Median", "P90", "P95", "P99")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """A replayed trace. Columns [n], seconds; theirs: the other simulator's values, metric → milliseconds."""

    workload: Workload
    plan: Plan
    ttft_s: np.ndarray
    tpot_s: np.ndarray
    latency_s: np.ndarray
    theirs: dict[str, float]


def read_run(data: Path, name: str) -> MeasuredRun:
    """The run on the device of that folder name. Latency counts from when the engine queued the request."""
    folder = data / "llmservingsim" / "bench" / "examples" / name / "Llama-3.1-8B"
    lines = (folder / "vllm" / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    requests = sorted((json.loads(line) for line in lines if line.strip()), key=lambda row: row["arrival_time"])
    column = {key: np.array([row[key] for row in requests], np.float64) for key in requests[0] if key != "request_id"}
    arrival, tokens = column["arrival_time"], column["output_toks"]
    # arrival_time is wall clock, the rest monotonic; the smallest queueing delay ties them (no request waits before it)
    shift = float((column["queued_ts"] - arrival).min())
    ttft = column["first_token_ts"] - arrival - shift
    finish = column["last_token_ts"] - arrival - shift
    workload = make_workload(
        arrival - arrival[0], column["input_toks"].astype(np.int32), tokens.astype(np.int32), source=name
    )
    return MeasuredRun(
        workload=workload,
        plan=plan_of(json.loads((folder / "vllm" / "meta.json").read_text(encoding="utf-8")), DEVICES[name]),
        ttft_s=ttft,
        tpot_s=(finish - ttft) / np.maximum(tokens - 1, 1),
        latency_s=finish,
        theirs=read_theirs(folder / "validation" / "summary.txt"),
    )


def plan_of(meta: dict[str, dict[str, int]], device: str) -> Plan:
    """The engine that meta.json describes; asynchronous scheduling is vLLM 0.19's default."""
    engine, cache = meta["engine_kwargs"], meta.get("kv_cache", {})
    scheduler = Scheduler(
        max_num_seqs=engine["max_num_seqs"],
        max_num_batched_tokens=engine["max_num_batched_tokens"],
        max_model_len=engine["max_model_len"] or 0,
        async_scheduling=True,
    )
    kv = KvPolicy(num_gpu_blocks=cache.get("num_gpu_blocks", 0))
    if kv.num_gpu_blocks:  # the run's --max-model-len is beyond what its blocks hold; no request is
        scheduler = replace(scheduler, max_model_len=kv.num_gpu_blocks * kv.block_size)
    return Plan(model="llama-3.1-8b", cluster=f"1x{device}", pools=(Pool(device=device, scheduler=scheduler, kv=kv),))


def read_theirs(path: Path) -> dict[str, float]:
    """ "TTFT Mean" → milliseconds of the other simulator."""
    pattern = re.compile(r"^(TTFT|TPOT|Latency) (Mean|Median|P\d+)\s+([\d.]+)\s+([\d.]+)")
    found = (pattern.match(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {f"{match[1]} {match[2]}": float(match[4]) for match in found if match}


def statistics(prefix: str, seconds: np.ndarray) -> dict[str, float]:
    """Metric → milliseconds, with the names of summary.txt."""
    values = [seconds.mean(), *np.percentile(seconds, (50, 90, 95, 99))]
    return {f"{prefix} {name}": float(value) * 1e3 for name, value in zip(STATISTICS, values, strict=True)}


def compare(run: MeasuredRun, name: str) -> list[Row]:
    """Statistics of TTFT, TPOT and latency; split "simtool" is ours, "LLMServingSim" theirs."""
    found = request_latencies(simulate(run.plan, run.workload))
    measured, ours = {}, {}
    for prefix, real, simulated in (
        ("TTFT", run.ttft_s, found.ttft_s),
        ("TPOT", run.tpot_s, found.tpot_s),
        ("Latency", run.latency_s, found.e2e_s),
    ):
        measured |= statistics(prefix, real)
        ours |= statistics(prefix, simulated)
    rows = []
    for split, values in (("simtool", ours), ("LLMServingSim", run.theirs)):
        for metric, value in values.items():
            rows.append(Row(name=name, quantity=metric, predicted=value, measured=measured[metric], split=split))
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
