"""B6: ExpertFlow, hit rates of Switch-32 with 16 slots a layer, batch 4 to 16.

    python benchmarks/reproductions/b6_expertflow.py

Mechanism: the routing path of all layers is predicted before the pass. All layers share the slots; predicted experts
are prefetched, the nearest layer first, and nothing that is wanted sooner leaves for them, so that a layer's slots
are free when it is done; a miss preempts what is prefetched, and a prefetch that proves wrong goes last. "LRU": the
same slots, 16 to each layer. "regrouped": before a pass the tokens of two batches are exchanged so that routes alike
are together. The decoder's 6 mixtures of 32 experts, one a token; a power law, a sequence's expert kept from the
token before with some probability. Fitted: the exponent and that probability on the two LRU rows; the path
predictor's recall (and as much precision) on its row with batch 4. Its row with batch 16 is blind. An expert is a hit
when it has its place before the gate asks, also if it is still on its way, so that no seconds enter here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simtool.models.routing.predictors import LearnedPredictor
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import zipf
from simtool.models.routing.trace import RoutingTrace
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.needs import expert_needs, ranked_needs
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.regroup import regrouped
from simtool.simulator.offload.store import expert_store
from simtool.simulator.offload.walk import walk

PUBLISHED = {("LRU", 4): 0.7661, ("LRU", 16): 0.5837, ("path", 4): 0.9190, ("path", 16): 0.8591}  # targets.md B6
LAYERS, EXPERTS, SLOTS, TOKENS, SEED = 6, 32, 16, 200, 0


def trace_of(batch: int, exponent: float, locality: float) -> RoutingTrace:
    shape = MoeShape(layers=tuple(range(LAYERS)), num_experts=EXPERTS, top_k=1)
    source = replace(zipf(shape, exponent, np.random.default_rng(SEED)), locality=locality)
    return sample_trace(source, sequences=batch, output_tokens=TOKENS, rng=np.random.default_rng(SEED + 1))


def two_batches(trace: RoutingTrace, *, by_route: bool) -> np.ndarray:
    """Steps of the two halves of the sequences, run one after the other; by_route: halves by predicted route."""
    batch = int(trace.sequence.max()) + 1
    half = (trace.sequence >= batch // 2).astype(np.int64)
    for step in range(TOKENS if by_route else 0):
        rows = np.flatnonzero(trace.step == step)
        half[rows] = regrouped(trace.experts[rows], EXPERTS, (batch // 2, batch - batch // 2))
    return 2 * trace.step + half


def hit_rate(system: str, trace: RoutingTrace, step: np.ndarray, recall: float = 1.0) -> float:
    prices = Prices(dense_s=np.zeros((1, LAYERS)), expert_s=by_tokens(0.0, 0.0), load_s=np.zeros(LAYERS * EXPERTS))
    needs = expert_needs(trace.experts, step, EXPERTS)
    if system == "LRU":
        return walk(expert_store(LAYERS, EXPERTS, 1, SLOTS), stock.lru(), needs, prices).hit_rate
    predictor = LearnedPredictor(recall=(recall,), precision=(recall,))
    guess = ranked_needs(predictor.predict(trace, 1, np.random.default_rng(SEED)).experts, step, EXPERTS)
    store = expert_store(LAYERS, EXPERTS, 1, SLOTS * LAYERS, shared=True)
    return walk(store, stock.predicted_path(LAYERS), needs, prices, guess=guess).hit_rate


def fitted_source() -> tuple[float, float]:
    """(exponent, locality) of a grid that miss the LRU rows least."""
    grid = [(exponent, locality) for exponent in np.arange(0.0, 1.6, 0.1) for locality in np.arange(0.0, 0.9, 0.1)]
    errors = []
    for exponent, locality in grid:
        traces = {batch: trace_of(batch, exponent, locality) for batch in (4, 16)}
        errors.append(sum((hit_rate("LRU", traces[b], traces[b].step) - PUBLISHED["LRU", b]) ** 2 for b in traces))
    return grid[int(np.argmin(errors))]


def fitted_recall(trace: RoutingTrace) -> float:
    recalls = np.linspace(0.5, 1.0, 26)
    rates = [hit_rate("path", trace, trace.step, float(recall)) for recall in recalls]
    return float(recalls[int(np.argmin(np.abs(np.array(rates) - PUBLISHED["path", 4])))])


def main() -> None:
    exponent, locality = fitted_source()
    recall = fitted_recall(trace_of(4, exponent, locality))
    print(f"fitted: exponent {exponent:.1f}, locality {locality:.1f}, recall of the path {recall:.2f}")
    for (system, batch), published in PUBLISHED.items():
        trace = trace_of(batch, exponent, locality)
        found = hit_rate(system, trace, trace.step, recall)
        own = "  (fitted)" * ((system, batch) != ("path", 16))
        beside = f"published {published:.2%}  simulated {found:.2%}  {found - published:+.2%}"
        print(f"{system:5} batch {batch:2d}  {beside}{own}")
    wide = trace_of(32, exponent, locality)
    for name, by_route in (("as they come", False), ("regrouped", True)):
        step = two_batches(wide, by_route=by_route)
        needed = len(expert_needs(wide.experts, step, EXPERTS).objects) / (2 * TOKENS * LAYERS)
        rates = [hit_rate(system, wide, step, recall) for system in ("LRU", "path")]
        print(f"two batches of 16, {name}: {needed:.1f} experts a layer, LRU {rates[0]:.2%}, path {rates[1]:.2%}")


if __name__ == "__main__":
    main()
