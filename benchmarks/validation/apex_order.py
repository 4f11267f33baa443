"""Order of three plans of 8 H100 for Llama-3.1-70B (apex_plus/measured_summary.csv: vLLM 0.6.0, real runs).

    python -m benchmarks.validation.apex_order

8TP, 2DP4TP and 4DP2TP serve the same requests (apex_plus/traces_len, 0.5 requests/s); measured are the mean time per
output token and time to first token. Only the 8TP run replayed the whole trace that we have; the data-parallel runs
logged shorter answers (700 tokens on average against 1,140), so their latencies are compared through TPOT, which
hardly depends on that. vLLM 0.6.0 is the V0 engine (prefill first, no asynchronous scheduling, much more host time a
step); we predict with the host overhead of vLLM V1, so the times are expected too short and the order is the claim.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from benchmarks.validation.comparison import Row, arguments, data_folder, errors_text, rows_text
from simtool.metrics import serving_metrics
from simtool.plan import KvPolicy, Parallel, Plan, Pool, Scheduler
from simtool.run import simulate
from simtool.workload import Workload, make_workload

PLANS = {"8TP": (8, 1), "2DP4TP": (4, 2), "4DP2TP": (2, 4)}  # (tp, replicas)


def read_trace(data: Path) -> Workload:
    """The replayed trace."""
    with (data / "apex_plus" / "traces_len" / "llama_creation_05.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    arrival = np.array([float(row["StartTimeOffset_ns"]) for row in rows]) * 1e-9
    order = np.argsort(arrival, kind="stable")
    inputs, outputs = (
        np.array([int(row[name]) for row in rows], np.int32)[order] for name in ("ContextTokens", "GeneratedTokens")
    )
    return make_workload(arrival[order], inputs, outputs, source="apex_plus creation")


def read_measured(data: Path) -> dict[str, dict[str, float]]:
    """Plan → {tpot, ttft} milliseconds, averaged over the replicas' logs by requests."""
    with (data / "apex_plus" / "measured_summary.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if float(row["n_requests_logged"] or 0) > 0]
    found = {}
    for plan in PLANS:
        logs = [row for row in rows if row["plan"] == plan or row["plan"].startswith(f"{plan}_")]
        weights = [float(row["n_requests_logged"]) for row in logs]
        found[plan] = {
            name: float(np.average([float(row[f"mean_{name}_s"]) for row in logs], weights=weights)) * 1e3
            for name in ("tpot", "ttft")
        }
    return found


def plan_of(name: str) -> Plan:
    """vLLM 0.6.0: prefill first, 97% of memory, synchronous scheduling."""
    tp, replicas = PLANS[name]
    scheduler = Scheduler(
        scheduling="prefill_first", max_num_seqs=256, max_num_batched_tokens=8192, async_scheduling=False
    )
    kv = KvPolicy(gpu_memory_utilization=0.97)
    pool = Pool(device="h100-sxm", replicas=replicas, parallel=Parallel(tp=tp), scheduler=scheduler, kv=kv)
    return Plan(model="llama-3.1-70b", cluster="8xh100-sxm", pools=(pool,))


def compare(data: Path) -> list[Row]:
    """TPOT and TTFT of each plan, milliseconds."""
    workload, measured, rows = read_trace(data), read_measured(data), []
    for name in PLANS:
        metrics = serving_metrics(simulate(plan_of(name), workload))
        for quantity in ("tpot", "ttft"):
            predicted = metrics[f"mean_{quantity}_ms"]
            rows.append(Row(name=name, quantity=quantity, predicted=predicted, measured=measured[name][quantity]))
    return rows


def order(rows: list[Row], *, measured: bool) -> list[str]:
    """Plans from the shortest TPOT to the longest."""
    tpot = [row for row in rows if row.quantity == "tpot"]
    return [row.name for row in sorted(tpot, key=lambda row: row.measured if measured else row.predicted)]


def main() -> None:
    """Print the times and the two orders."""
    rows = compare(data_folder(arguments(__doc__.splitlines()[0])))
    print(rows_text(rows))
    print(errors_text(rows))
    print(f"measured order:  {' < '.join(order(rows, measured=True))}")
    print(f"predicted order: {' < '.join(order(rows, measured=False))}")


if __name__ == "__main__":
    main()
