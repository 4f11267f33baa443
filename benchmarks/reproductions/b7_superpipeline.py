"""B7: Superpipeline, GPU memory that streaming of layers saves.

    python benchmarks/reproductions/b7_superpipeline.py

Mechanism: some layers stay on the GPU, spread evenly; the others come from host memory in order, k' of them on their
way or waiting, and are released when they are done. In the steady state a streamed layer takes max(executing,
moving); resident ones give the link time to catch up. Headline: up to 60% less GPU memory. Nothing is fitted; this is
a check of the trend. Llama-3-8B in bf16 prefills batches of prompts on an A100 over PCIe 4 (the catalogue's rate and
efficiency), its FLOPs at half of the dense peak, k' = 2. Printed: the fewest resident layers that cost at most 5% of
the speed, and the weights saved.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simtool.hardware.collective_algorithms import LINK_EFFICIENCY
from simtool.hardware.device import load_device
from simtool.hardware.links import load_link
from simtool.models.config import load_architecture
from simtool.models.memory import weight_bytes
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.needs import every_step
from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.store import layer_store
from simtool.simulator.offload.walk import walk

PUBLISHED_SAVING = 0.60  # targets.md B7, the most
ARCHITECTURE, DEVICE = load_architecture("llama-3-8b"), load_device("a100-80g")
LAYERS = len(ARCHITECTURE.layers)
EMBEDDING_BYTES = 2 * 2 * ARCHITECTURE.vocab_size * ARCHITECTURE.hidden_size
LAYER_BYTES = int((weight_bytes(ARCHITECTURE) - EMBEDDING_BYTES) / LAYERS)
AHEAD, STEPS, LOSS = 2, 12, 0.05


def execute_s(tokens: int) -> float:
    """A layer, the larger of its FLOPs (2 a weight and token) and reading its weights."""
    return max(tokens * LAYER_BYTES / (0.5 * DEVICE.peak_flops("bf16")), LAYER_BYTES / DEVICE.hbm_bytes_per_s)


def move_s() -> float:
    link = load_link(DEVICE.pcie)
    return LAYER_BYTES / (link.bytes_per_s * LINK_EFFICIENCY[link.kind])


def step_s(resident: int, tokens: int) -> float:
    """Seconds of a pass in the steady state."""
    held = np.zeros(LAYERS, np.bool_)
    held[np.linspace(0, LAYERS - 1, resident).round().astype(int)] = True
    store = layer_store([LAYER_BYTES] * LAYERS, AHEAD * LAYER_BYTES)
    store = replace(store, pool_bytes=np.array([int(held.sum()) * LAYER_BYTES]))
    prices = Prices(
        dense_s=np.zeros((1, LAYERS)),
        expert_s=np.full((1, 1), execute_s(tokens)),
        load_s=np.full(LAYERS, move_s()),
    )
    needs = every_step(LAYERS, STEPS)
    found = walk(store, stock.streaming(LAYERS - 1), needs, prices, guess=needs, resident=held)
    return float(np.diff(found.end_s)[STEPS // 2 : -1].mean())


def saved(tokens: int) -> tuple[int, float]:
    """(fewest resident layers at that loss, share of the weights that the GPU need not hold)."""
    whole = LAYERS * execute_s(tokens)
    fewest = next(
        count for count in range(LAYERS + 1) if step_s(count, tokens) <= (1 + LOSS) * whole or count == LAYERS
    )
    kept = fewest + (AHEAD if fewest < LAYERS else 0)
    return fewest, 1.0 - (min(kept, LAYERS) * LAYER_BYTES + EMBEDDING_BYTES) / weight_bytes(ARCHITECTURE)


def main() -> None:
    print(f"a layer of {LAYER_BYTES / 1e6:.0f} MB moves in {move_s() * 1e3:.1f} ms; published {PUBLISHED_SAVING:.0%}")
    print(f"{'tokens':>7} {'executes':>9} {'resident':>9} {'saved':>6} {'none resident':>14}")
    for tokens in (1, 512, 1024, 2048, 4096, 6144, 8192):
        fewest, share = saved(tokens)
        unit_s = step_s(0, tokens) / LAYERS
        print(
            f"{tokens:7d} {execute_s(tokens) * 1e3:6.2f} ms {fewest:9d} {share:6.1%} {unit_s * 1e3:6.2f} ms a layer,"
            f" max(executes, moves) {max(execute_s(tokens), move_s()) * 1e3:.2f} ms"
        )


if __name__ == "__main__":
    main()
