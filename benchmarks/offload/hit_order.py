"""Reuse under expert offload by policy, cache size and locality: Belady >= predicted >= LRU >= random?

    python benchmarks/offload/hit_order.py

Reuse is 1 - loads / needs: the share of needed experts that did not have to be loaded for it. For policies that load on
demand it is the hit rate. "predicted" knows what the layers to come of the same token need, at the stated recall, and
evicts by it, but loads nothing ahead, so that it is a demand policy as the others; "prefetched" (predicted path, three
layers ahead, recall 0.8) also loads ahead: its hits may exceed Belady's, its reuse cannot. "bound" is what no policy
beats (Belady with bypassing). Cache: share of all experts, in one pool for all layers or split over them; in split
pools a token's own path says nothing of a layer's next need, so that predicted is LRU there. "need" is the most that
a step (a shared pool) or a layer of it (a split one) needs at once, over the pool's slots: above 1 it overflows.
Sources: fitted to the published counts of Mixtral and OLMoE, Zipf, and a drifting Dirichlet; locality is the chance
that an expert's draw is kept from the token before. 150 tokens of one or four sequences at once, nothing is warm.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from simtool.models.routing.predictors import LearnedPredictor, PerfectPredictor, Predictor
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source_text import parse_source
from simtool.models.routing.trace import RoutingTrace
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.belady import fewest_loads
from simtool.simulator.offload.needs import Needs, expert_needs, ranked_needs
from simtool.simulator.offload.policy import OffloadPolicy
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.store import OffloadStore, expert_store
from simtool.simulator.offload.walk import Walk, walk

MIXTRAL = MoeShape(layers=tuple(range(32)), num_experts=8, top_k=2)
OLMOE = MoeShape(layers=tuple(range(16)), num_experts=64, top_k=8)
SOURCES = {
    "mixtral-8x7b": MIXTRAL,
    "olmoe-1b-7b/c4": OLMOE,
    "olmoe-1b-7b/arxiv": OLMOE,
    "zipf:1": OLMOE,
    "dirichlet:0.3,drift=0.01": OLMOE,
}
LOCALITIES, SHARES, BATCHES = (0.0, 0.4, 0.7), (0.125, 0.25, 0.5), (1, 4)
TOKENS = 150
RECALL = 0.8
COLUMNS = (
    "need",
    "bound",
    "belady",
    "predicted",
    f"at {RECALL}",
    "lru",
    "lfu",
    "fifo",
    "random",
    "prefetched",
    "its hits",
)
ORDER = ("belady", "predicted", "lru", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One trace on one store."""

    trace: RoutingTrace
    store: OffloadStore


def trace_of(name: str, locality: float, batch: int) -> RoutingTrace:
    rng = np.random.default_rng(0)
    source, layers = parse_source(f"{name},locality={locality}" if locality else name, SOURCES[name], rng)
    return sample_trace(source, sequences=batch, output_tokens=TOKENS, rng=rng, layers=layers)


def case_of(trace: RoutingTrace, share: float, shared: bool) -> Case:
    layers, experts = len(trace.layers), trace.num_experts
    slots = round((layers if shared else 1) * experts * share)
    return Case(trace=trace, store=expert_store(layers, experts, 1000, slots, shared=shared))


def evicts_by_path(layers: int) -> OffloadPolicy:
    """Predictions decide who leaves; without room for staging nothing is loaded ahead."""
    return OffloadPolicy(name="predicted", evict="predicted", prefetch="staging", window=layers - 1)


def guessed(trace: RoutingTrace, predictor: Predictor) -> Needs:
    told = predictor.predict(trace, 1, np.random.default_rng(1))
    return ranked_needs(told.experts, trace.step, trace.num_experts)


def walked(case: Case, policy: OffloadPolicy, needs: Needs, guess: Needs | None = None) -> Walk:
    layers = len(case.trace.layers)
    free = Prices(
        dense_s=np.zeros((1, layers)),
        expert_s=by_tokens(0.0, 0.0),
        load_s=np.full(len(case.store.object_layer), 1e-3),
    )
    return walk(case.store, policy, needs, free, guess=guess)


def pressure(case: Case, needs: Needs) -> float:
    """The most that a pool's layers need in one step, over its slots."""
    counts = np.diff(needs.starts).reshape(-1, needs.layers)
    shared = len(case.store.pool_bytes) == 1
    most = int((counts.sum(axis=1) if shared else counts).max())
    return most * int(case.store.object_bytes[0]) / int(case.store.pool_bytes[0])


def reuse(found: Walk) -> float:
    return 1.0 - found.total("loads") / found.total("needed")


def row(case: Case) -> dict[str, float]:
    """COLUMNS of one trace and store."""
    trace = case.trace
    needs = expert_needs(trace.experts, trace.step, trace.num_experts)
    by_path = evicts_by_path(len(trace.layers))
    learned = guessed(trace, LearnedPredictor(recall=(RECALL,), precision=(RECALL,)))
    ahead = walked(case, stock.predicted_path(3), needs, learned)
    return {
        "need": pressure(case, needs),
        "bound": 1.0 - fewest_loads(case.store, needs) / len(needs.objects),
        "belady": reuse(walked(case, stock.belady(), needs)),
        "predicted": reuse(walked(case, by_path, needs, guessed(trace, PerfectPredictor()))),
        f"at {RECALL}": reuse(walked(case, by_path, needs, learned)),
        **{name: reuse(walked(case, stock.lru(evict=name), needs)) for name in ("lru", "lfu", "fifo", "random")},
        "prefetched": reuse(ahead),
        "its hits": ahead.hit_rate,
    }


def broken(found: dict[str, float]) -> str:
    """The first pair that is out of order, or nothing."""
    for better, worse in pairwise(ORDER):
        if found[better] < found[worse] - 1e-12:
            return f"{better} < {worse}"
    return ""


def main() -> None:
    print(
        f"{'source':25}{'loc.':>5}{'batch':>6}{'cache':>7} {'pool':6}", *(f"{name:>10}" for name in COLUMNS), " broken"
    )
    held: dict[tuple[str, str], list[bool]] = {}
    for name in SOURCES:
        for batch, locality in ((batch, locality) for batch in BATCHES for locality in LOCALITIES):
            trace = trace_of(name, locality, batch)
            for share, shared in ((share, shared) for share in SHARES for shared in (True, False)):
                if not shared and trace.num_experts * share < trace.top_k:
                    continue
                found, pool = row(case_of(trace, share, shared)), "shared" if shared else "split"
                wrong = broken(found)
                kind = "with locality" if locality else "without locality"
                fits = "fit the pool" if found["need"] <= 1 else "overflow the pool"
                held.setdefault((kind, fits), []).append(not wrong)
                cells = " ".join(f"{found[column]:10.3f}" for column in COLUMNS)
                print(f"{name:25}{locality:5.1f}{batch:6d}{share:7.1%} {pool:6} {cells}  {wrong}")
    for (kind, fits), rows in sorted(held.items()):
        print(f"{kind}, where needs {fits}: the order holds in {sum(rows)} of {len(rows)} rows")


if __name__ == "__main__":
    main()
