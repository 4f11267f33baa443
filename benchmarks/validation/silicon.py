"""H200 serving runs of InferenceMAX (aiconfigurator/silicon_e2e.csv): gpt-oss-120b and Llama-3.1-70B under vLLM.

    python -m benchmarks.validation.silicon

A row is a closed loop: concurrency c, 10 c prompts sent as fast as the cap allows, prompts and outputs uniform in
[0.8, 1] x 1024 tokens, no prefix caching. Engine flags as InferenceMAX sets them or vLLM defaults on an H200:
8192 tokens a step, asynchronous scheduling. The published columns are "TTFT" and "TPOT" without mean or median: the
mean is compared.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from benchmarks.validation.comparison import Row, arguments, data_folder, errors_text, rows_text
from simtool.metrics import serving_metrics
from simtool.plan import KvPolicy, Parallel, Plan, Pool, Scheduler
from simtool.run import simulate
from simtool.traces.synthesis import synthesise
from simtool.workload import Workload

MODELS = {"openai/gpt-oss-120b": ("gpt-oss-120b", "auto"), "meta-llama/Llama-3.1-70B": ("llama-3.1-70b", "fp8")}
SEED = 0


def plan_of(run: dict[str, str]) -> Plan:
    """The plan that a row of the table ran on."""
    model, weights = MODELS[run["model_path"]]
    tp, dp, ep = (int(float(run[name])) for name in ("tp_size", "attention_dp_size", "moe_ep_size"))
    scheduler = Scheduler(max_num_seqs=512, max_num_batched_tokens=8192, async_scheduling=True)
    pool = Pool(device="h200", parallel=Parallel(tp=tp, dp=dp, ep=ep), scheduler=scheduler, kv=KvPolicy())
    return Plan(model=model, cluster=f"{tp * dp}xh200", pools=(pool,), weight_dtype=weights)


def workload_of(run: dict[str, str], seed: int = SEED) -> Workload:
    """The closed loop of a row."""
    concurrency = int(float(run["concurrency"]))
    return synthesise(
        num_requests=10 * concurrency,
        input_len=f"{run['isl']}*0.8..1",
        output_len=f"{run['osl']}*0.8..1",
        max_concurrency=concurrency,
        rng=np.random.default_rng(seed),
    )


def split_of(place: int) -> str:
    """Which half a row belongs to: the request latency in host.toml was fitted on the TTFT of the first."""
    return "held out" if place % 2 else "fitted"


def metrics_of(run: dict[str, str], seed: int = SEED) -> dict[str, float]:
    """Simulated metrics of a row."""
    return serving_metrics(simulate(plan_of(run), workload_of(run, seed)))


def read_runs(data: Path) -> list[dict[str, str]]:
    """Rows of the table, in order of model, TP and concurrency."""
    with (data / "aiconfigurator" / "silicon_e2e.csv").open(encoding="utf-8", newline="") as file:
        runs = list(csv.DictReader(file))
    return sorted(runs, key=lambda run: (run["model_path"], float(run["tp_size"]), float(run["concurrency"])))


def compare(runs: list[dict[str, str]]) -> list[Row]:
    """TPOT and TTFT of every run, milliseconds. No TPOT was ever fitted."""
    rows = []
    for place, run in enumerate(runs):
        metrics = metrics_of(run)
        model = MODELS[run["model_path"]][0]
        name = f"{model} tp{float(run['tp_size']):.0f} c{float(run['concurrency']):.0f}"
        for quantity in ("tpot", "ttft"):
            predicted, measured = metrics[f"mean_{quantity}_ms"], float(run[f"silicon_{quantity}_ms"])
            split = split_of(place) if quantity == "ttft" else "held out"
            rows.append(Row(name=name, quantity=quantity, predicted=predicted, measured=measured, split=split))
    return rows


def main() -> None:
    """Print every row and the errors."""
    rows = compare(read_runs(data_folder(arguments(__doc__.splitlines()[0]))))
    rows.sort(key=lambda row: row.quantity)
    print(rows_text(rows))
    print(errors_text(rows))


if __name__ == "__main__":
    main()
