"""Serving runs with an overlap beside runs without, in one process: CPU time a run, and what compiling the pool takes.

python benchmarks/simulator/overlap_speed.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from simtool.hardware.cluster import parse_cluster
from simtool.models.config import load_architecture
from simtool.overlaps import STOCK
from simtool.plan import Overlap, Parallel, Pool, Scheduler
from simtool.simulator.compile import compile_engine
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.run import simulate_engines
from simtool.workload import make_workload

REQUESTS, ROUNDS = 200_000, 5


def cpu_s(run: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Alternate the two runs, so that what the machine does besides meets both."""
    rng = np.random.default_rng(0)
    arrival_s = np.cumsum(rng.exponential(1 / 40.0, REQUESTS))
    lengths = (rng.lognormal(np.log(mean), 0.5, REQUESTS).clip(1, 4000).astype(np.int32) for mean in (512, 128))
    workload = make_workload(arrival_s, *lengths)
    hardware, host = priced_cluster(parse_cluster("4xh200"), "vllm")
    arch = load_architecture("llama-3.1-8b")
    plain = Pool(device="h200", parallel=Parallel(tp=4), scheduler=Scheduler(max_num_batched_tokens=8192))
    for name in ("two-batch", "fused"):
        engines, compiled = {}, {}
        for label, overlap in (("none", Overlap()), (name, STOCK[name])):
            pool = replace(plain, overlap=overlap)
            engines[label] = compile_engine(arch, pool, hardware, host=host)  # the first compiles kernels
            compiled[label] = cpu_s(lambda pool=pool: compile_engine(arch, pool, hardware, host=host))
        seconds: dict[str, list[float]] = {label: [] for label in engines}
        for _ in range(ROUNDS):
            for label, engine in engines.items():
                seconds[label].append(cpu_s(lambda engine=engine: simulate_engines([engine], workload)))
        least = {label: min(found) for label, found in seconds.items()}
        rates = ", ".join(f"{label} {REQUESTS / found:,.0f}" for label, found in least.items())
        print(f"requests a CPU-second: {rates} (time x{least[name] / least['none']:.2f})")
        print(f"compiling the pool: none {compiled['none']:.2f} s, {name} {compiled[name]:.2f} s")


if __name__ == "__main__":
    main()
