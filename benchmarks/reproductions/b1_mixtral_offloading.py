"""B1: Mixtral-offloading, tokens a second on four GPUs with less and less of it.

    python benchmarks/reproductions/b1_mixtral_offloading.py

Mechanism: 32 layers of 8 experts, 2 a token, batch 1, experts of 57.3 MB in host memory. "no LRU": the gate's two
experts are loaded and released. "no prefetch": an LRU pool a layer (2 slots on the 3060, else 4). "full": beside it
the next layer's gate on this layer's hidden state names two experts, which are loaded to four staging buffers behind
what is missed. "naive": whole layers of 8 experts stream, one on its way while the one before it computes. Routing:
simtool's source fitted to Mixtral's expert counts, over 32 layers. Fitted, two numbers a GPU: seconds of an expert on
the link (row "naive"), and of a token's computing (row "no LRU"). Fitted for all GPUs together, on the A100's other
two rows: how often an expert's clock is kept from the token before (what the routing counts do not say), and the
recall of the speculation. The other six rows are blind. The row allows four parameters a GPU: with these two fitted
for each GPU nothing is left to predict, but they must still exist, and the last lines say whether they do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simtool.models.routing.predictors import GatePredictor
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source_text import parse_source
from simtool.models.routing.trace import RoutingTrace
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.needs import Needs, every_step, expert_needs, ranked_needs
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.store import expert_store, layer_store
from simtool.simulator.offload.walk import Walk, walk

LAYERS, EXPERTS, TOP_K = 32, 8, 2
EXPERT_BYTES = 57_300_000
STAGING = 4
TOKENS, SEED = 1000, 0
ROWS = ("full", "no prefetch", "no LRU", "naive")
PUBLISHED = {  # targets.md B1, tokens a second
    "A100": (3.061, 2.918, 2.265, 1.392),
    "3080 Mobile": (2.655, 2.227, 1.758, 1.059),
    "3060": (2.278, 2.051, 1.547, 0.919),
    "T4": (2.092, 1.567, 1.168, 0.661),
}
SLOTS = {"3060": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """load_s: an expert on the link. token_s: computing of a token, all layers."""

    load_s: float
    token_s: float
    slots: int = 4


def fitted(name: str) -> Gpu:
    """From "naive" (all 256 experts at the link's rate) and "no LRU" (computing, and then two experts a layer)."""
    _, _, on_demand, naive = PUBLISHED[name]
    load_s = 1.0 / naive / (LAYERS * EXPERTS)
    return Gpu(load_s=load_s, token_s=1.0 / on_demand - LAYERS * TOP_K * load_s, slots=SLOTS.get(name, 4))


def routing(locality: float) -> RoutingTrace:
    rng = np.random.default_rng(SEED)
    shape = MoeShape(layers=tuple(range(LAYERS)), num_experts=EXPERTS, top_k=TOP_K)
    source, layers = parse_source(f"mixtral-8x7b,locality={locality}", shape, rng)
    return sample_trace(source, sequences=1, output_tokens=TOKENS, rng=rng, layers=layers)


def guessed(trace: RoutingTrace, recall: float) -> Needs:
    """The experts that the gate of the next layer names; none for the first layer, before which there is no gate."""
    found = GatePredictor(hit_rates=(recall,)).predict(trace, 1, np.random.default_rng(SEED))
    return ranked_needs(found.experts, trace.step, EXPERTS)


def prices(gpu: Gpu) -> Prices:
    return Prices(
        dense_s=np.full((1, LAYERS), gpu.token_s / LAYERS),
        expert_s=by_tokens(0.0, 0.0),
        load_s=np.full(LAYERS * EXPERTS, gpu.load_s),
    )


def simulated(row: str, gpu: Gpu, trace: RoutingTrace, recall: float) -> Walk:
    if row == "naive":
        needs = every_step(LAYERS, 20)
        whole = np.full(LAYERS, EXPERTS * gpu.load_s)
        layers = Prices(dense_s=np.zeros((1, LAYERS)), expert_s=by_tokens(0.0, gpu.token_s / LAYERS), load_s=whole)
        store = layer_store([EXPERTS * EXPERT_BYTES] * LAYERS, 2 * EXPERTS * EXPERT_BYTES)
        return walk(store, stock.streaming(1), needs, layers, guess=needs)
    needs = expert_needs(trace.experts, trace.step, EXPERTS)
    slots = 0 if row == "no LRU" else gpu.slots
    store = expert_store(LAYERS, EXPERTS, EXPERT_BYTES, slots, staging=STAGING)
    if row == "full":
        return walk(store, stock.speculative(), needs, prices(gpu), guess=guessed(trace, recall))
    return walk(store, stock.on_demand() if row == "no LRU" else stock.lru(), needs, prices(gpu))


def speed(found: Walk) -> float:
    """Tokens a second, the first tenth left out while the pools fill."""
    skip = len(found.end_s) // 10
    return float((len(found.end_s) - 1 - skip) / (found.end_s[-1] - found.end_s[skip]))


def bisected(of: Callable[[float], float], target: float) -> float:
    """The number from 0 to 1 at which a rising function is nearest to the target."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) < target else (low, middle)
    return (low + high) / 2


def own_fit(name: str) -> tuple[float, float]:
    """(locality, recall) of a GPU's "no prefetch" and "full"."""
    gpu, (full, no_prefetch, _, _) = fitted(name), PUBLISHED[name]
    locality = bisected(lambda x: speed(simulated("no prefetch", gpu, routing(x), 0.0)), no_prefetch)
    trace = routing(locality)
    return locality, bisected(lambda x: speed(simulated("full", gpu, trace, x)), full)


def print_own_fits(common: RoutingTrace) -> None:
    """Four parameters a GPU, and what no rule of eviction could better."""
    for name, (full, no_prefetch, _, _) in PUBLISHED.items():
        locality, recall = own_fit(name)
        gpu, trace = fitted(name), routing(locality)
        plain, best = (simulated(row, gpu, trace, recall) for row in ("no prefetch", "full"))
        needs = expert_needs(common.experts, common.step, EXPERTS)
        bound = walk(expert_store(LAYERS, EXPERTS, 1, gpu.slots), stock.belady(), needs, prices(gpu)).hit_rate
        print(
            f"{name:12} own locality {locality:.2f} (hit rate {plain.hit_rate:.2f}), own recall {recall:.2f}:"
            f" no prefetch {speed(plain) / no_prefetch - 1:+.1%}, full {speed(best) / full - 1:+.1%};"
            f" Belady on the A100's trace {bound:.2f}"
        )


def main() -> None:
    locality, recall = own_fit("A100")
    trace = routing(locality)
    print(f"fitted on the A100: locality {locality:.2f}, recall of the speculation {recall:.2f}")
    print(f"{'':12} {'row':12} {'published':>9} {'simulated':>9} {'error':>7}   tok/s")
    blind = []
    for name, published in PUBLISHED.items():
        gpu = fitted(name)
        print(
            f"{name}: {EXPERT_BYTES / gpu.load_s / 1e9:.1f} GB/s, {gpu.token_s * 1e3:.0f} ms a token,"
            f" {gpu.slots} slots a layer"
        )
        for row, target in zip(ROWS, published, strict=True):
            found = simulated(row, gpu, trace, recall)
            error = speed(found) / target - 1
            own = row in ("no LRU", "naive") or name == "A100"
            hits = f"hit rate {found.hit_rate:.2f}" if row == "no prefetch" else ""
            print(f"{'':12} {row:12} {target:9.3f} {speed(found):9.3f} {error:+7.1%}  {'(fitted) ' * own}{hits}")
            blind += [] if own else [abs(error)]
    print(f"blind rows: mean |error| {np.mean(blind):.1%}, worst {np.max(blind):.1%}")
    print_own_fits(trace)


if __name__ == "__main__":
    main()
