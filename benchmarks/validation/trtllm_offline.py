"""Offline throughput of dense models under TensorRT-LLM (trtllm/throughput.csv: NVIDIA's v0.17 overview).

    python -m benchmarks.validation.trtllm_offline

All requests are queued at once with fixed lengths. Settings as `trtllm-bench` makes them: in-flight batching, 95% of
free memory for KV, FP8 KV beside FP8 weights, at most 2048 requests and 8192 tokens a step, and a request is admitted
only when the KV of its whole answer fits (GUARANTEED_NO_EVICT), which for fixed lengths is a limit on requests.
TensorRT-LLM keeps Mistral's full attention unless asked for a window, hence version 0.3, which has none.
Fewer requests are sent than NVIDIA did (1,000 to 30,000), but at least as many as the largest batch holds.
A100 and H200 are NVLink machines like those that our collective tables were measured on. L40S with several devices is
split off: its collective tables come from a machine whose all-reduce over 4 and 8 GPUs reaches 3 and 1 GB/s, and
NVIDIA's machine was plainly another one.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.validation.comparison import Row, arguments, data_folder, errors_text, rows_text
from simtool.errors import InfeasibleError
from simtool.metrics import serving_metrics
from simtool.plan import KvPolicy, Parallel, Plan, Pool, Scheduler
from simtool.run import engines_of, simulate
from simtool.workload import Workload, make_workload

MODELS = {"LLaMA v3.1 8B": "llama-3.1-8b", "LLaMA v3.1 70B": "llama-3.1-70b", "Mistral 7B": "mistral-7b-v0.3"}
DEVICES = {"H200-SXM-141GB": "h200", "A100-SXM4-80GB": "a100-80g", "L40S": "l40s"}
MAX_REQUESTS, MAX_TOKENS, KV_SHARE = 2048, 8192, 0.95


def workload_of(run: dict[str, str]) -> Workload:
    """Requests of one row, all at 0."""
    isl, osl = int(run["isl"]), int(run["osl"])
    count = 3000 if (isl, osl) == (128, 128) else 600 if isl + osl <= 2500 else 300 if isl + osl <= 6000 else 200
    count = max(count, MAX_REQUESTS)  # enough to fill the largest batch
    return make_workload(np.zeros(count), np.full(count, isl, np.int32), np.full(count, osl, np.int32))


def plan_of(run: dict[str, str], workload: Workload) -> Plan:
    """The engine of one row. Raises InfeasibleError where the model does not fit."""
    device, fp8, tp = DEVICES[run["gpu"]], run["precision"] == "FP8", int(float(run["tp"]))
    tokens = int(run["isl"]) + int(run["osl"])
    scheduler = Scheduler(max_num_seqs=1, max_num_batched_tokens=MAX_TOKENS, async_scheduling=True)
    kv = KvPolicy(gpu_memory_utilization=KV_SHARE, dtype="fp8" if fp8 else "auto")
    pool = Pool(device=device, parallel=Parallel(tp=tp), scheduler=scheduler, kv=kv)
    plan = Plan(
        model=MODELS[run["model"]],
        cluster=f"{tp}x{device}",
        pools=(pool,),
        weight_dtype="fp8" if fp8 else "auto",
        kernel_library="trtllm",
    )
    seats = engines_of(plan, workload)[0].num_blocks // -(-tokens // kv.block_size)
    scheduler = replace(scheduler, max_num_seqs=max(1, min(MAX_REQUESTS, seats)))
    return replace(plan, pools=(replace(pool, scheduler=scheduler),))


def read_runs(data: Path) -> list[dict[str, str]]:
    """Rows with a throughput of models and devices that we know."""
    with (data / "trtllm" / "throughput.csv").open(encoding="utf-8", newline="") as file:
        runs = [run for run in csv.DictReader(file) if run["metric"] == "total_output_tok_s"]
    return [run for run in runs if run["model"] in MODELS and run["gpu"] in DEVICES]


def compare(runs: list[dict[str, str]]) -> tuple[list[Row], list[str]]:
    """(output tokens/s of every row, rows that we say do not fit)."""
    rows, refused = [], []
    for run in runs:
        name = f"{MODELS[run['model']]} {DEVICES[run['gpu']]} tp{float(run['tp']):.0f} {run['isl']}/{run['osl']}"
        workload = workload_of(run)
        try:
            metrics = serving_metrics(simulate(plan_of(run, workload), workload))
        except InfeasibleError as error:
            refused.append(f"{name}: {error}")
            continue
        predicted, measured = metrics["output_throughput"], float(run["value"])
        split = DEVICES[run["gpu"]] + (" PCIe tp>1" if run["gpu"] == "L40S" and float(run["tp"]) > 1 else "")
        rows.append(Row(name=name, quantity="tok/s", predicted=predicted, measured=measured, split=split))
    return rows, refused


def main() -> None:
    """Print every row and the errors by device."""
    rows, refused = compare(read_runs(data_folder(arguments(__doc__.splitlines()[0]))))
    print(rows_text(rows, "tok/s"))
    print("\n".join(refused))
    print(errors_text(rows))


if __name__ == "__main__":
    main()
