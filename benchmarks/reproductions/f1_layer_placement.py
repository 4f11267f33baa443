"""F1: Helix's layer placement instances: published MILP, our optimum with certificate, and what simulation says.

    python benchmarks/reproductions/f1_layer_placement.py [--seconds 60]

Part 1 solves the flow model of the instances (F1 of the targets). Part 2 takes these machines from the catalogue
(4 A100-40G, 8 L4, 12 T4; Llama-2-70B), turns the flow optimum into a plan, searches with pipeline depth and KV memory
in the model, and simulates both: the flow model knows neither depth nor KV, so its optimum need not be the best plan.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from simtool.errors import InfeasibleError
from simtool.plan import KvPolicy, Parallel, Plan, Pool, Scheduler
from simtool.planners.check import check_placement
from simtool.planners.evaluate import simulate_plan
from simtool.planners.mixed import plan_mixed
from simtool.planners.placement import Machine, Placement, place_layers
from simtool.planners.question import Question, Space
from simtool.planners.real import open_backend
from simtool.planners.search import Budget
from simtool.planners.space import plan_label
from simtool.workload import Workload, make_workload

OPTIMUM = {"layout_single_24": 2045.64, "llama30b_t4": 397.69}  # targets.md F1
DEVICES = ("l4", "t4", "a100-40g")  # by the instance's machine types: 8, 12, 4
CLUSTER, MODEL = "4xa100-40g+8xl4+12xt4", "llama-2-70b"
SEED = 0


def shared_folder() -> Path:
    return Path(os.environ.get("SIMTOOL_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))


def solve_instances(path: Path) -> dict[str, Placement]:
    print(
        f"{'instance':18} {'published':>10} {'optimum':>9} {'ours':>9} {'error':>8}"
        f" {'bound':>9} {'status':>8} {'CPU s':>6}"
    )
    placements = {}
    for name, instance in json.loads(path.read_text()).items():
        machines = [
            Machine(
                name=str(kind),
                count=entry["count"],
                rate={int(k): v for k, v in entry["throughput_tokens_per_s_when_holding_k_layers"].items()},
            )
            for kind, entry in enumerate(instance["machine_types"])
        ]
        started = time.process_time()
        found = place_layers(machines, instance["layers"])
        spent = time.process_time() - started
        ranges, first = [], 0
        for stage in found.stages:
            ranges += [(kind, first, stage.layers) for kind, n in enumerate(stage.machines) for _ in range(n)]
            first += stage.layers
        check_placement(ranges, [m.count for m in machines], [m.rate for m in machines], instance["layers"], found.flow)
        error = found.flow / OPTIMUM[name] - 1
        print(
            f"{name:18} {instance['published_objective_tokens_per_s']:10.2f} {OPTIMUM[name]:9.2f} {found.flow:9.2f}"
            f" {error:8.3%} {found.certificate.bound:9.2f} {found.certificate.status:>8} {spent:6.2f}"
        )
        placements[name] = found
    return placements


def workload() -> Workload:
    """Closed loop at 64 requests in flight, lengths around the Azure conversation trace's means (763 in, 232 out)."""
    rng = np.random.default_rng(SEED)
    inputs = np.clip(rng.lognormal(np.log(512), 0.9, 300), 16, 2048).astype(np.int32)
    outputs = np.clip(rng.lognormal(np.log(170), 0.8, 300), 8, 1024).astype(np.int32)
    return make_workload(np.zeros(300), inputs, outputs, max_concurrency=64)


def chain_plan(placement: Placement) -> Plan:
    """The flow optimum as one pipeline; every stage is one machine."""
    names = tuple(DEVICES[next(i for i, n in enumerate(stage.machines) if n)] for stage in placement.stages)
    layers = tuple(stage.layers for stage in placement.stages)
    pool = Pool(
        device=names[0],
        parallel=Parallel(pp=len(names), layers_per_stage=layers),
        scheduler=Scheduler(max_num_seqs=256, max_num_batched_tokens=2048),
        kv=KvPolicy(),
        stage_devices=names,
    )
    return Plan(model=MODEL, cluster=CLUSTER, pools=(pool,))


def simulate_both(placement: Placement, seconds: float) -> None:
    work = workload()
    space = Space(max_num_batched_tokens=(2048,), tp=(1, 2, 4))
    question = Question(model=MODEL, devices=CLUSTER, workload=work, objective="throughput-per-dollar", space=space)
    backend = open_backend(question)
    print(f"\nsimulated: {MODEL} on {CLUSTER}, 300 requests, 64 in flight")
    chain = chain_plan(placement)
    try:
        spec = backend.compile(chain, chain.pools[0])
        run = simulate_plan(backend, chain, [spec], work, question.slo)
        show("flow optimum", chain, run.metrics)
    except InfeasibleError as error:
        print(f"flow optimum ({len(placement.stages)} stages): cannot be served: {error}")
    answer, certificate = plan_mixed(question, backend=backend, budget=Budget(max_seconds=seconds))
    show("best simulated", answer.best.plan, answer.best.metrics)
    print(
        f"certificate: {certificate.status}, gap {certificate.gap:.1%} in {certificate.seconds:.1f} s;"
        f" {certificate.scope}"
    )


def show(name: str, plan: Plan, metrics: object) -> None:
    assert isinstance(metrics, dict)
    stages = "; ".join(str(pool.parallel.layers_per_stage) for pool in plan.pools if pool.stage_devices)
    print(
        f"{name:15} {metrics['output_throughput']:8.1f} output tokens/s, TTFT {metrics['mean_ttft_ms']:8.0f} ms,"
        f" TPOT {metrics['mean_tpot_ms']:7.1f} ms, {plan.devices} devices: {plan_label(plan)} {stages}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of the simulated search")
    options = parser.parse_args()
    path = shared_folder() / "data" / "helix" / "placement_instances.json"
    if not path.exists():
        print(f"skipped: {path} is absent (set SIMTOOL_SHARED)")
        return
    placements = solve_instances(path)
    simulate_both(placements["layout_single_24"], options.seconds)


if __name__ == "__main__":
    main()
