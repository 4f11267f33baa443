"""A serving run with offloaded experts: requests and layer-steps a CPU-second.

    python benchmarks/simulator/offload_serving.py [--requests 10000]

Mixtral-8x7B in bf16 on one A100-40G, which does not hold it: 16 sequences a step, Poisson requests, log-normal around
128 prompt and 64 output tokens, faster than the replica can. Every step's store is walked. CPU time of the run alone
(compiling the engine and drawing the routing apart).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from simtool.offloads import parse_offload
from simtool.plan import Plan, Pool, Scheduler
from simtool.run import engines_of
from simtool.simulator.run import simulate_engines
from simtool.simulator.warm import compile_kernel
from simtool.workload import Workload, make_workload

OFFLOADS = ("lru,slots=3", "speculative,slots=2,recall=0.8", "predicted-path,slots=3", "static-cheaper,slots=3")
ROUTING = "mixtral-8x7b,locality=0.4"


def workload(requests: int) -> Workload:
    rng = np.random.default_rng(0)
    lengths = [np.clip(rng.lognormal(np.log(m), 0.5, requests), 4, 450).astype(np.int32) for m in (128, 64)]
    return replace(make_workload(rng.exponential(0.2, requests).cumsum(), *lengths), expert_routing=ROUTING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    load = workload(parser.parse_args().requests)
    compile_kernel()
    for text in OFFLOADS:
        scheduler = Scheduler(max_num_seqs=16, max_num_batched_tokens=512)
        pool = Pool(device="a100-40g", scheduler=scheduler, offload=parse_offload(text))
        engines = engines_of(Plan(model="mixtral-8x7b", cluster="1xa100-40g", pools=(pool,)), load)
        simulate_engines(engines, workload(10))  # loads what was compiled
        start = time.process_time()
        use = simulate_engines(engines, load).offload
        seconds = time.process_time() - start
        assert use is not None
        layer_steps = len(use.start_s) * len(use.layer_hits)
        speeds = f"{load.num_requests / seconds:8,.0f} requests/CPU-s {layer_steps / seconds:10,.0f} layer-steps/CPU-s"
        print(f"{text:32}{speeds}   {len(use.start_s):,} steps, hit rate {use.hit_rate:.2f}", flush=True)


if __name__ == "__main__":
    main()
