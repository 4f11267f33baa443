"""Llama-2-70B on 2, 4 and 8 A100: prompt and token times of a static batch (splitwise_sim/perf_model_a100.csv).

    python -m benchmarks.validation.splitwise_a100

Splitwise measured them with an engine of 2023 (no CUDA graphs). Its token time hardly falls below 45 ms whatever the
TP degree: the host launches kernels one by one and sets the pace. Those rows (TP 4 and 8) are compared apart; where
the device is slower than that host (TP 2, and prompts) kernels and collectives are what is compared. Prompts of a batch
were run one after another, so only batches of one tell a prompt's time.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.validation.comparison import Row, arguments, data_folder, errors_text, rows_text
from simtool.explaining import explain
from simtool.plan import Parallel, Plan, Pool, Scheduler

BROKEN_BATCH = {2: 32}  # llama2-70b on 2 devices: from this batch size on the rows contradict themselves (INDEX.md)


def read_points(data: Path) -> dict[tuple[int, int, int], tuple[float, float]]:
    """(tp, prompt, batch) → medians of (prompt, token) milliseconds over repeats; 128 tokens, no power cap."""
    found: dict[tuple[int, int, int], list[tuple[float, float]]] = defaultdict(list)
    with (data / "splitwise_sim" / "perf_model_a100.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if (row["model"], row["hardware"], row["token_size"]) != ("llama2-70b", "a100-80gb", "128"):
                continue
            key = (int(row["tensor_parallel"]), int(row["prompt_size"]), int(row["batch_size"]))
            if key[2] < BROKEN_BATCH.get(key[0], 1 << 30):
                found[key].append((float(row["prompt_time"]), float(row["token_time"])))
    return {key: tuple(np.median(values, axis=0)) for key, values in sorted(found.items())}


def plan_of(tp: int) -> Plan:
    """Llama-2-70B as Splitwise ran it: no CUDA graphs, a synchronous scheduler."""
    scheduler = Scheduler(max_num_seqs=64, max_num_batched_tokens=8192, cuda_graphs=False, async_scheduling=False)
    pool = Pool(device="a100-80g", parallel=Parallel(tp=tp), scheduler=scheduler)
    return Plan(model="llama-2-70b", cluster=f"{tp}xa100-80g", pools=(pool,))


def compare(points: dict[tuple[int, int, int], tuple[float, float]]) -> list[Row]:
    """Prompt times of single prompts and token times; split by what sets the pace."""
    rows = []
    for (tp, prompt, batch), (prompt_ms, token_ms) in points.items():
        plan, name = plan_of(tp), f"tp{tp} prompt {prompt} x {batch}"
        if prompt + 128 > 4096:
            continue  # beyond Llama-2's context
        if batch == 1:
            seconds = explain(plan, f"prefill:1x{prompt}").seconds
            rows.append(Row(name=name, quantity="prompt", predicted=seconds * 1e3, measured=prompt_ms, split=f"tp{tp}"))
        seconds = explain(plan, f"decode:{batch}x{prompt + 64}").seconds
        rows.append(Row(name=name, quantity="token", predicted=seconds * 1e3, measured=token_ms, split=f"tp{tp}"))
    return rows


def main() -> None:
    """Print every point and the errors by TP degree."""
    rows = compare(read_points(data_folder(arguments(__doc__.splitlines()[0]))))
    print(rows_text(rows))
    print(errors_text(sorted(rows, key=lambda row: row.quantity)))


if __name__ == "__main__":
    main()
