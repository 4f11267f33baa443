"""B8: M3ViT, experts one by one through two slots.

    python benchmarks/reproductions/b8_m3vit.py

Mechanism: tokens are queued by expert; expert i is computed while expert i + 1 is loaded into the other slot: T =
load_0 + sum max(comp_i, load_{i+1}). Memory is that of two experts. Headline: that memory; there is no published time
to compare with, so the simulated time is printed beside the closed form and beside what more slots or none would
give. One mixture of M3ViT's ViT-small: 16 experts of 2 x 384 x 1536 (fp16), 4 of 16 a token, 1,536 tokens of a
power-law source; loads at 12.8 GB/s and 0.5 TFLOP/s are assumed (an embedded board; both terms matter).
"""

from __future__ import annotations

import numpy as np

from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import zipf
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.needs import Needs, expert_needs
from simtool.simulator.offload.policy import OffloadPolicy
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.store import expert_store
from simtool.simulator.offload.walk import walk

EXPERTS, TOP_K, TOKENS = 16, 4, 196
EXPERT_BYTES = 2 * 384 * 1536 * 2
LOAD_S, TOKEN_S = EXPERT_BYTES / 12.8e9, EXPERT_BYTES / 0.5e12
PUBLISHED_SLOTS = 2  # targets.md B8


def needs_of(exponent: float) -> Needs:
    rng = np.random.default_rng(0)
    shape = MoeShape(layers=(0,), num_experts=EXPERTS, top_k=TOP_K)
    trace = sample_trace(zipf(shape, exponent, rng), sequences=1, prompt_tokens=TOKENS, output_tokens=0, rng=rng)
    return expert_needs(trace.experts, trace.step, EXPERTS)


def simulated_s(needs: Needs, slots: int, policy: OffloadPolicy) -> float:
    prices = Prices(dense_s=np.zeros((1, 1)), expert_s=by_tokens(0.0, TOKEN_S), load_s=np.full(EXPERTS, LOAD_S))
    return walk(expert_store(1, EXPERTS, EXPERT_BYTES, 0, staging=slots), policy, needs, prices).makespan_s


def closed_form_s(needs: Needs) -> float:
    computed = needs.tokens * TOKEN_S
    following = np.append(np.full(len(computed) - 1, LOAD_S), 0.0)
    return float(LOAD_S + np.maximum(computed, following).sum())


def main() -> None:
    each, together = stock.on_demand(order="each"), stock.on_demand(order="all")
    print(
        f"an expert of {EXPERT_BYTES / 1e6:.2f} MB loads in {LOAD_S * 1e6:.0f} us; a token takes {TOKEN_S * 1e6:.2f} us"
    )
    print(f"memory of {PUBLISHED_SLOTS} experts, {PUBLISHED_SLOTS / EXPERTS:.1%} of all; times in us")
    print(
        f"{'exponent':>8} {'two slots':>10} {'closed form':>12} {'one slot':>9} {'all slots':>10} {'all, together':>14}"
    )
    for exponent in (0.0, 0.5, 1.0, 1.5):
        needs = needs_of(exponent)
        times = [
            simulated_s(needs, PUBLISHED_SLOTS, each),
            closed_form_s(needs),
            simulated_s(needs, 1, each),
            simulated_s(needs, EXPERTS, each),
            simulated_s(needs, EXPERTS, together),
        ]
        two, closed, one, many, waiting = (seconds * 1e6 for seconds in times)
        print(f"{exponent:8.1f} {two:10.1f} {closed:12.1f} {one:9.1f} {many:10.1f} {waiting:14.1f}")


if __name__ == "__main__":
    main()
