"""Requests per CPU-second of the simulator, beside per-token stepping of the same engine.

    python benchmarks/simulator/replica_speed.py [--mooncake TRACE.jsonl.gz]

Marginal CPU time of the simulation alone (start-up and compilation apart), one process, one core. Three set-ups:
one replica under 1,000,000 Poisson requests; eight replicas behind a least-outstanding router; sixteen replicas with
prefix caching behind a prefix-aware router on a Mooncake trace. Stepping: the same kernel with exact_steps, and an
independent plain-Python engine (tests/simulator/naive_engine.py) on the first requests of the same run.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simtool.plan import KvPolicy, Parallel, Plan, Pool, Scheduler
from simtool.run import engines_of
from simtool.simulator.engine import EngineSpec
from simtool.simulator.run import simulate_engines
from simtool.traces import first_requests, read_trace, synthesise
from simtool.workload import Workload
from tests.simulator.naive_engine import run_naive


def one_a100(workload: Workload, *, replicas: int = 1, prefix_caching: bool = False) -> list[EngineSpec]:
    """Llama-3-8B on A100-80G, one GPU a replica, vLLM V1 with the vLLM kernel library."""
    pool = Pool(
        device="a100-80g",
        replicas=replicas,
        parallel=Parallel(),
        scheduler=Scheduler(max_num_seqs=256, max_num_batched_tokens=2048),
        kv=KvPolicy(prefix_caching=prefix_caching),
    )
    plan = Plan(model="llama-3.1-8b", cluster=f"{replicas}xa100-80g", pools=(pool,))
    return engines_of(plan, workload)


def poisson(requests: int, rate: float) -> Workload:
    """Log-normal lengths around 512 in and 128 out."""
    rng = np.random.default_rng(0)
    return synthesise(
        num_requests=requests, request_rate=rate, input_len="lognormal:512:0.7", output_len="lognormal:128:0.7", rng=rng
    )


def saturation_rate(engine: EngineSpec) -> float:
    """Requests/s that one replica serves when all arrive at once."""
    result = simulate_engines([engine], poisson(20_000, np.inf))
    return float(20_000 / result.finish_s.max())


def cpu_rate(run: Callable[[], object], requests: int) -> float:
    """Requests a CPU-second, the better of two runs."""
    best = np.inf
    for _ in range(2):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return requests / best


def report(name: str, rate: float, note: str = "") -> None:
    print(f"{name:<58}{rate:>12,.0f} requests/CPU-s  {note}")


def single(engine: EngineSpec) -> None:
    """The 1,000,000-request Poisson run at 80% load; then leaping beside the two ways to step, on equal requests."""
    saturated = saturation_rate(engine)
    full = poisson(1_000_000, 0.8 * saturated)
    report("one replica, 1,000,000 requests, 80% load", cpu_rate(lambda: simulate_engines([engine], full), 1_000_000))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process {peak:.2f} GiB")
    for share in (0.8, 0.2, 0.02):
        beside(engine, share, poisson(50_000, share * saturated))


def beside(engine: EngineSpec, share: float, work: Workload) -> None:
    """Leap, step and plain Python side by side at one load."""
    steps = simulate_engines([engine], work).num_steps / work.num_requests
    leap = cpu_rate(lambda: simulate_engines([engine], work), work.num_requests)
    report(f"{share:.0%} load, 50,000 requests, leaping", leap, f"{steps:.1f} steps/request")
    exact = cpu_rate(lambda: simulate_engines([engine], work, exact_steps=True), work.num_requests)
    report("  same kernel, one iteration at a time", exact, f"leap is {leap / exact:.1f}x")
    few = first_requests(work, 500)
    naive = cpu_rate(lambda: run_naive(engine, few), few.num_requests)
    report("  plain Python, one token at a time (500)", naive, f"leap is {leap / naive:,.0f}x")


def routed(engine: EngineSpec) -> None:
    """Eight replicas behind a router that looks at the state at every arrival."""
    load = 8 * 0.8 * saturation_rate(engine)
    workload = poisson(200_000, load)
    run = lambda: simulate_engines([engine] * 8, workload, router="least_outstanding")  # noqa: E731
    report("8 replicas, least outstanding", cpu_rate(run, workload.num_requests))


def mooncake(path: Path) -> None:
    """Long prompts with shared prefixes on sixteen replicas."""
    trace = read_trace(path)
    engines = one_a100(trace, replicas=16, prefix_caching=True)
    fits = trace.input_tokens + trace.output_tokens <= engines[0].max_model_len
    report(
        "16 replicas, prefix-aware, Mooncake",
        cpu_rate(lambda: simulate_engines(engines, trace, router="prefix_aware"), trace.num_requests),
        f"{trace.num_requests} requests of {trace.input_tokens.mean():,.0f} tokens, {fits.mean():.1%} fit the context",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mooncake", type=Path)
    arguments = parser.parse_args()
    small = poisson(1000, 10.0)
    engine = one_a100(small)[0]
    simulate_engines([engine], small)
    simulate_engines([engine] * 2, first_requests(small, 100), router="prefix_aware")
    single(dataclasses.replace(engine))
    routed(engine)
    if arguments.mooncake:
        mooncake(arguments.mooncake)


if __name__ == "__main__":
    main()
