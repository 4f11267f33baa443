"""B3: KTransformers, Qwen3-Next-80B-A3B FP8 on four RTX 4090, tokens a second by the share of experts on the GPUs.

    python benchmarks/reproductions/b3_ktransformers.py

Mechanism: a random share of each layer's 512 experts is placed on the GPUs and stays; of a token's ten, those that are
not there are computed on the CPU beside the GPUs' part, and a layer that has any pays a fixed synchronisation. An
expert on the GPUs takes the time of reading its FP8 weights, cut over four, at the catalogue's bandwidth. Tokens choose
uniformly: under a random placement popularity averages out.
Fitted: the rest of a layer on the row 100%, seconds of an expert on the CPU and of the synchronisation on the rows 0%
and 50%. The other four rows are blind. "most used": the most popular experts are placed instead, for routing that
follows a power law of exponent 0.5 (an assumption; there is no published row here to compare with).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simtool.hardware.device import load_device
from simtool.models.architecture import MoeMlp
from simtool.models.config import load_architecture
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import moe_shape
from simtool.models.routing.source import uniform, zipf
from simtool.models.routing.trace import loads
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.needs import Needs, expert_needs
from simtool.simulator.offload.placing import random_experts, used_most
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.store import expert_store
from simtool.simulator.offload.walk import Walk, walk

PUBLISHED = {0: 53.0, 10: 56.6, 30: 62.9, 50: 70.4, 70: 74.4, 90: 88.8, 100: 112.6}  # targets.md B3, random placement
FITTED_ROWS = (0, 50, 100)
GPUS, TOKENS, SEED, EXPONENT = 4, 300, 0, 0.5
ARCHITECTURE = load_architecture("qwen3-next-80b-a3b")
SHAPE = moe_shape(ARCHITECTURE)
LAYERS, EXPERTS, TOP_K = len(SHAPE.layers), SHAPE.num_experts, SHAPE.top_k


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds of a layer without routed experts, of an expert on the CPU, of bringing both sides together."""

    dense_s: float
    cpu_s: float = 0.0
    sync_s: float = 0.0


def expert_bytes() -> int:
    mlp = ARCHITECTURE.layers[SHAPE.layers[0]].mlp
    assert isinstance(mlp, MoeMlp)
    return 3 * ARCHITECTURE.hidden_size * mlp.intermediate_size  # FP8


def gpu_expert_s() -> float:
    return expert_bytes() / GPUS / load_device("rtx-4090").hbm_bytes_per_s


def needs_of(exponent: float, seed: int) -> tuple[Needs, np.ndarray]:
    """Of one sequence; and how often each expert is used, [layers, experts], by another one. Popularity is one draw."""
    source = zipf(SHAPE, exponent, np.random.default_rng(SEED)) if exponent else uniform(SHAPE)
    trace, other = (
        sample_trace(source, sequences=1, output_tokens=TOKENS, rng=np.random.default_rng(seed + part))
        for part in (0, 1)
    )
    uses = loads(other.experts, np.zeros(other.tokens, np.int64), 1, EXPERTS)[0]
    return expert_needs(trace.experts, trace.step, EXPERTS), uses


def simulated(percent: int, costs: Costs, needs: Needs, uses: np.ndarray | None = None) -> Walk:
    """uses: place the most used experts, else random ones."""
    slots = round(EXPERTS * percent / 100)
    rng = np.random.default_rng(SEED)
    held = random_experts(LAYERS, EXPERTS, slots, rng) if uses is None else used_most(uses, slots)
    prices = Prices(
        dense_s=np.full((1, LAYERS), costs.dense_s),
        expert_s=by_tokens(gpu_expert_s(), 0.0),
        load_s=np.zeros(LAYERS * EXPERTS),
        cpu_s=by_tokens(costs.cpu_s, 0.0),
        cpu_sync_s=costs.sync_s,
    )
    return walk(expert_store(LAYERS, EXPERTS, expert_bytes(), slots), stock.static(), needs, prices, resident=held)


def speed(found: Walk) -> float:
    return len(found.end_s) / found.makespan_s


def fitted(needs: Needs) -> Costs:
    """The row 100% has no CPU part; Newton's steps on the other two rows, in which time is nearly linear."""
    costs = Costs(dense_s=1.0 / PUBLISHED[100] / LAYERS - TOP_K * gpu_expert_s())
    rows = [row for row in FITTED_ROWS if row != 100]
    for _ in range(8):
        missed = [1.0 / PUBLISHED[row] - 1.0 / speed(simulated(row, costs, needs)) for row in rows]
        step = 1e-7
        slopes = [
            [
                (1.0 / speed(simulated(row, moved, needs)) - 1.0 / speed(simulated(row, costs, needs))) / step
                for moved in (replace(costs, cpu_s=costs.cpu_s + step), replace(costs, sync_s=costs.sync_s + step))
            ]
            for row in rows
        ]
        cpu_s, sync_s = np.linalg.lstsq(np.array(slopes), np.array(missed), rcond=None)[0]
        costs = replace(costs, cpu_s=max(0.0, costs.cpu_s + cpu_s), sync_s=max(0.0, costs.sync_s + sync_s))
    return costs


def main() -> None:
    needs, _ = needs_of(0.0, SEED)
    skewed, uses = needs_of(EXPONENT, SEED)
    costs = fitted(needs)
    print(
        f"fitted: {costs.dense_s * 1e6:.0f} us a layer without experts, {costs.cpu_s * 1e6:.1f} us an expert on the"
        f" CPU, {costs.sync_s * 1e6:.1f} us a synchronisation; an expert on the GPUs {gpu_expert_s() * 1e6:.2f} us"
    )
    print(f"{'on GPUs':>8} {'published':>9} {'simulated':>9} {'error':>7} {'hits':>6}  most used, its hits   tok/s")
    blind = []
    for percent, published in PUBLISHED.items():
        found, placed = simulated(percent, costs, needs), simulated(percent, costs, skewed, uses)
        error = speed(found) / published - 1
        print(
            f"{percent:7d}% {published:9.1f} {speed(found):9.1f} {error:+7.1%} {found.hit_rate:6.1%}"
            f" {speed(placed):10.1f} {placed.hit_rate:6.1%}" + "  (fitted)" * (percent in FITTED_ROWS)
        )
        blind += [] if percent in FITTED_ROWS else [abs(error)]
    print(f"blind rows: mean |error| {np.mean(blind):.1%}, worst {np.max(blind):.1%}")


if __name__ == "__main__":
    main()
