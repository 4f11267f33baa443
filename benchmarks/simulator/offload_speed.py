"""Layer-steps per CPU-second of the offload walk, for Mixtral (32 layers, 2 of 8) and Qwen3 (48 layers, 8 of 128).

    python benchmarks/simulator/offload_speed.py

"walk" is the whole call, from needs to columns, its checks and arrays; "needs" makes them from a routing trace.
"step by step" is an ExpertCache that is given one step at a time, as a serving replica does. CPU time (process_time),
the best of three; compilation apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.cache import ExpertCache
from simtool.simulator.offload.needs import Needs, expert_needs
from simtool.simulator.offload.policy import OffloadPolicy
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.store import OffloadStore, expert_store
from simtool.simulator.offload.walk import walk


def chosen(steps: int, batch: int, layers: int, experts: int, top_k: int) -> np.ndarray:
    """int16[tokens, layers, top_k], uniform."""
    clocks = np.random.default_rng(0).random((steps * batch, layers, experts), dtype=np.float32)
    return np.argpartition(clocks, top_k, axis=2)[..., :top_k].astype(np.int16)


def best(run: Callable[[], object]) -> float:
    """Least CPU seconds of three calls."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def one_step(needs: Needs, step: int) -> Needs:
    starts = needs.starts[step * needs.layers : (step + 1) * needs.layers + 1]
    span = slice(starts[0], starts[-1])
    return Needs(starts=starts - starts[0], objects=needs.objects[span], tokens=needs.tokens[span], layers=needs.layers)


def show(name: str, store: OffloadStore, policy: OffloadPolicy, needs: Needs, prices: Prices) -> None:
    visits = needs.steps * needs.layers
    seconds = best(lambda: walk(store, policy, needs, prices, guess=needs))
    print(f"  {name:<44}{visits / seconds:>12,.0f} layer-steps/CPU-s", flush=True)


def shape(name: str, layers: int, experts: int, top_k: int, batch: int, steps: int) -> None:
    tokens = chosen(steps, batch, layers, experts, top_k)
    step = np.repeat(np.arange(steps), batch)
    needs, half = expert_needs(tokens, step, experts), experts // 2
    print(f"{name}, batch {batch}: {len(needs.objects) / (steps * layers):.1f} experts a layer-step")
    prices = Prices(
        dense_s=np.full((1, layers), 2e-4),
        expert_s=by_tokens(1e-4, 1e-6),
        load_s=np.full(layers * experts, 1e-3),
        cpu_s=by_tokens(0.0, 5e-4),
    )
    seconds = best(lambda: expert_needs(tokens, step, experts))
    print(f"  {'needs':<44}{steps * layers / seconds:>12,.0f} layer-steps/CPU-s")
    own = expert_store(layers, experts, 100, half, staging=experts)
    shared = expert_store(layers, experts, 100, half * layers, shared=True, staging=experts)
    show("LRU", own, stock.lru(), needs, prices)
    show("LRU, one pool for all layers", shared, stock.lru(), needs, prices)
    show("speculative", own, stock.speculative(), needs, prices)
    show("static, cheaper on the CPU", own, stock.static("cheaper"), needs, prices)
    show("predicted path, 4 layers, one pool", shared, stock.predicted_path(4), needs, prices)
    cache, parts = ExpertCache(own, stock.lru(), prices), [one_step(needs, index) for index in range(steps)]
    seconds = best(lambda: [cache.run(part) for part in parts])
    print(f"  {'LRU, step by step':<44}{steps * layers / seconds:>12,.0f} layer-steps/CPU-s")


def main() -> None:
    shape("warm-up", 2, 8, 2, 1, 4)
    shape("Mixtral-8x7B", 32, 8, 2, 1, 4000)
    shape("Mixtral-8x7B", 32, 8, 2, 16, 1000)
    shape("Qwen3-30B-A3B", 48, 128, 8, 1, 1000)
    shape("Qwen3-30B-A3B", 48, 128, 8, 16, 200)


if __name__ == "__main__":
    main()
