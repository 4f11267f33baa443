"""B4: Pre-gated MoE, Switch-Base on an A100 over PCIe 4, batch 1, tokens a second.

    python benchmarks/reproductions/b4_pre_gated.py

Mechanism: the decoder's 6 mixtures (every second of 12 layers), one expert a token. "on-demand": the gate's expert is
loaded, then computed. "pre-gated": block n's gate chooses for block n + 1, whose expert moves while n computes, so
that a block takes max(exec_n, migrate_{n+1}); the first block has no gate before it. "prefetch-all": all experts of
the next block move. Given, not predicted: the row "GPU only", which sets what a block computes. Nothing is fitted.
Assumed: fp32 experts (2 x 768 x 3072) and 64 or 128 of them, uniform routing; the expert's own time is that of
reading its weights at the catalogue's bandwidth. The link: 32 GB/s as the row says, and the catalogue's PCIe 4 with
its efficiency.
"""

from __future__ import annotations

import numpy as np

from simtool.hardware.collective_algorithms import LINK_EFFICIENCY
from simtool.hardware.device import load_device
from simtool.hardware.links import load_link
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import uniform
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.needs import Needs, every_step, expert_needs
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.store import expert_store, layer_store
from simtool.simulator.offload.walk import walk

PUBLISHED = {"GPU only": 137.0, "pre-gated": 111.0, "on-demand": 74.0, "prefetch-all": 4.0}  # targets.md B4
BLOCKS, EXPERT_BYTES, TOKENS = 6, 2 * 768 * 3072 * 4, 200


def without_first(needs: Needs) -> Needs:
    """What earlier gates tell: nothing of a step's first block."""
    told = np.repeat(np.arange(len(needs.starts) - 1) % needs.layers > 0, np.diff(needs.starts))
    starts = np.concatenate([[0], np.cumsum(told)])[needs.starts]
    return Needs(starts=starts, objects=needs.objects[told], tokens=needs.tokens[told], layers=needs.layers)


def speed(system: str, experts: int, bytes_per_s: float) -> float:
    """Tokens a second."""
    block_s = 1.0 / PUBLISHED["GPU only"] / BLOCKS
    load_s = EXPERT_BYTES / bytes_per_s
    if system == "prefetch-all":
        needs = every_step(BLOCKS, 10)
        whole = Prices(
            dense_s=np.zeros((1, BLOCKS)), expert_s=by_tokens(0.0, block_s), load_s=np.full(BLOCKS, experts * load_s)
        )
        size = experts * EXPERT_BYTES
        found = walk(layer_store([size] * BLOCKS, 2 * size), stock.streaming(1), needs, whole, guess=needs)
        return len(found.end_s) / found.makespan_s
    expert_s = EXPERT_BYTES / load_device("a100-80g").hbm_bytes_per_s
    shape = MoeShape(layers=tuple(range(BLOCKS)), num_experts=experts, top_k=1)
    trace = sample_trace(uniform(shape), sequences=1, output_tokens=TOKENS, rng=np.random.default_rng(0))
    needs = expert_needs(trace.experts, trace.step, experts)
    prices = Prices(
        dense_s=np.full((1, BLOCKS), block_s - expert_s),
        expert_s=by_tokens(expert_s, 0.0),
        load_s=np.full(BLOCKS * experts, load_s),
    )
    if system == "GPU only":
        store = expert_store(BLOCKS, experts, EXPERT_BYTES, experts)
        found = walk(store, stock.lru(), needs, prices, resident=np.ones(BLOCKS * experts, np.bool_))
        return TOKENS / found.makespan_s
    store = expert_store(BLOCKS, experts, EXPERT_BYTES, 0, staging=2)
    policy = stock.pre_gated() if system == "pre-gated" else stock.on_demand()
    return TOKENS / walk(store, policy, needs, prices, guess=without_first(needs)).makespan_s


def main() -> None:
    link = load_link("pcie4")
    for rate in (32e9, link.bytes_per_s * LINK_EFFICIENCY[link.kind]):
        print(f"{rate / 1e9:.1f} GB/s: an expert in {EXPERT_BYTES / rate * 1e3:.2f} ms")
        for experts in (64, 128):
            for system, published in PUBLISHED.items():
                found = speed(system, experts, rate)
                beside = f"{published:6.0f} {found:7.1f} {found / published - 1:+7.1%}"
                print(f"  {experts:3d} experts {system:12} {beside}" + "  (given)" * (system == "GPU only"))


if __name__ == "__main__":
    main()
