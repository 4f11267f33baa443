"""B5: MoE-Infinity on an RTX A5000 with 24 GB, batch 1, seconds a token.

    python benchmarks/reproductions/b5_moe_infinity.py

Mechanism: all layers share one pool of expert slots, and the least activated expert leaves it. Before a token, the
recorded activation matrix most like what the sequence has used so far names experts of the layer ahead, which are
prefetched behind what is missed. "no prefetch" is the same without it; "LRU" evicts by the last use instead.
"Accelerate": every MoE layer's experts move whole when it runs, one layer on its way while the one before it computes.
Nothing is fitted. Slots are what 90% of memory leaves beside the dense weights; loads go over PCIe 4 at the catalogue's
rate and efficiency; the GPU reads each weight that it uses once at the catalogue's bandwidth. Mixtral: bf16, the source
fitted to its counts. Switch-large-128: fp32, the decoder's 12 mixtures of 128 experts, one a token, a power law of
exponent 1. Assumed: sequences of 64 tokens, all experts in host memory ("SSD": host memory holds half of them, the
rest on an SSD of 3 GB/s), 100 recorded matrices, and a locality of 0.4 within a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simtool.hardware.collective_algorithms import LINK_EFFICIENCY
from simtool.hardware.device import load_device
from simtool.hardware.links import load_link
from simtool.models.config import load_architecture
from simtool.models.memory import weight_bytes
from simtool.models.routing.matrix_predictor import MatrixPredictor, recorded_matrices
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import RoutingSource, zipf
from simtool.models.routing.source_text import parse_source
from simtool.models.routing.trace import RoutingTrace
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.belady import fewest_loads
from simtool.simulator.offload.needs import every_step, expert_needs, ranked_needs
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.store import expert_store, layer_store
from simtool.simulator.offload.walk import Walk, walk

PUBLISHED_S = {"Switch-large-128": (0.130, 1.043), "Mixtral-8x7B": (0.735, 6.633)}  # targets.md B5: own, Accelerate
DEVICE = load_device("a5000")
TOKENS, SEQUENCES, MATRICES, LOCALITY, SEED = 64, 8, 100, 0.4, 0
WINDOW = 1
SSD_BYTES_PER_S = 3e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    name: str
    shape: MoeShape
    expert_bytes: int
    dense_bytes: float
    source: RoutingSource

    @property
    def slots(self) -> int:
        return int((0.9 * DEVICE.usable_bytes - self.dense_bytes) // self.expert_bytes)


def models() -> tuple[Model, ...]:
    rng = np.random.default_rng(SEED)
    switch = MoeShape(layers=tuple(range(12)), num_experts=128, top_k=1)
    mixtral = MoeShape(layers=tuple(range(32)), num_experts=8, top_k=2)
    expert = 3 * 4096 * 14336 * 2
    # T5-large's decoder: 24 layers of self- and cross-attention (8 x 1024 x 1024), 12 dense MLPs, 32,128 embeddings
    dense = 4.0 * (24 * 8 * 1024**2 + 12 * 2 * 1024 * 4096 + 32128 * 1024)
    return (
        Model(
            name="Switch-large-128",
            shape=switch,
            expert_bytes=2 * 1024 * 4096 * 4,
            dense_bytes=dense,
            source=replace(zipf(switch, 1.0, rng), locality=LOCALITY),
        ),
        Model(
            name="Mixtral-8x7B",
            shape=mixtral,
            expert_bytes=expert,
            dense_bytes=weight_bytes(load_architecture("mixtral-8x7b")) - 256 * expert,
            source=parse_source(f"mixtral-8x7b,locality={LOCALITY}", mixtral, rng)[0],
        ),
    )


def traces(model: Model) -> tuple[RoutingTrace, RoutingTrace]:
    """Sequences one after the other, and others before them whose activations were recorded."""
    found = sample_trace(model.source, sequences=SEQUENCES, output_tokens=TOKENS, rng=np.random.default_rng(1))
    past = sample_trace(model.source, sequences=MATRICES, output_tokens=TOKENS, rng=np.random.default_rng(2))
    return replace(found, step=found.sequence * TOKENS + found.position), past


def link_s(size: float) -> float:
    link = load_link(DEVICE.pcie)
    return size / (link.bytes_per_s * LINK_EFFICIENCY[link.kind])


def simulated(system: str, model: Model, trace: RoutingTrace, past: RoutingTrace) -> Walk:
    layers, experts = len(model.shape.layers), model.shape.num_experts
    dense_s = model.dense_bytes / layers / DEVICE.hbm_bytes_per_s
    expert_s = model.expert_bytes / DEVICE.hbm_bytes_per_s
    if system == "Accelerate":
        whole, needs = experts * model.expert_bytes, every_step(layers, 10)
        computed = by_tokens(dense_s + model.shape.top_k * expert_s, 0.0)
        moved = Prices(dense_s=np.zeros((1, layers)), expert_s=computed, load_s=np.full(layers, link_s(whole)))
        return walk(layer_store([whole] * layers, 2 * whole), stock.streaming(1), needs, moved, guess=needs)
    half = layers * experts // 2 if system == "SSD" else None
    prices = Prices(
        dense_s=np.full((1, layers), dense_s),
        expert_s=by_tokens(expert_s, 0.0),
        load_s=np.full(layers * experts, link_s(model.expert_bytes)),
        read_s=np.full(layers * experts, model.expert_bytes / SSD_BYTES_PER_S),
    )
    store = expert_store(layers, experts, model.expert_bytes, model.slots, shared=True, host=half)
    needs = expert_needs(trace.experts, trace.step, experts)
    if system in ("LRU", "no prefetch"):
        return walk(store, stock.lru(evict="lru" if system == "LRU" else "lfu"), needs, prices)
    found = MatrixPredictor(matrices=recorded_matrices(past), most=model.shape.top_k).predict(
        trace, 1, np.random.default_rng(SEED)
    )
    guess = ranked_needs(found.experts, trace.step, experts)
    return walk(store, stock.activation_matrix(WINDOW, most=model.shape.top_k), needs, prices, guess=guess)


def bound(model: Model, trace: RoutingTrace) -> float:
    """The largest share of needs that could find their expert kept since the need before."""
    layers, experts = len(model.shape.layers), model.shape.num_experts
    needs = expert_needs(trace.experts, trace.step, experts)
    store = expert_store(layers, experts, model.expert_bytes, model.slots, shared=True)
    return 1.0 - fewest_loads(store, needs) / len(needs.objects)


def main() -> None:
    for model in models():
        trace, past = traces(model)
        own, rival = PUBLISHED_S[model.name]
        total = len(model.shape.layers) * model.shape.num_experts
        print(f"{model.name}: {model.slots} slots for {total} experts of {model.expert_bytes / 1e6:.0f} MB")
        print(f"  Belady's bound of the hit rate without prefetching: {bound(model, trace):.2f}")
        for system, published in {
            "MoE-Infinity": own,
            "no prefetch": 0,
            "LRU": 0,
            "SSD": 0,
            "Accelerate": rival,
        }.items():
            found = simulated(system, model, trace, past)
            seconds = found.makespan_s / len(found.end_s)
            beside = f"published {published:.3f} {seconds / published - 1:+7.1%}" if published else " " * 24
            hits = "" if system == "Accelerate" else f"hit rate {found.hit_rate:.2f}, loads {found.total('loads')}"
            print(f"  {system:12} {seconds:.3f} s a token  {beside}  {hits}")


if __name__ == "__main__":
    main()
