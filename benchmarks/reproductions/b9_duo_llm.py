"""B9: Duo-LLM, a big feed-forward module, a small one and a skip in every layer, chosen token by token.

    python benchmarks/reproductions/b9_duo_llm.py

Published (targets.md B9) is the structure: the small module is 1/16 of the big one, and a token chooses under a compute
budget, so that FLOPs differ by token and weight bytes by module. The row has no times: what is checked is that the
budget is what the choices cost, and what is simulated is what it does to a step, all in HBM and with the modules
offloaded. Mechanism: each token and layer has a difficulty; under one price of compute each takes the module that is
worth most (the best choice of its cost there is, `budgeted_choices`). Modules are objects of unlike size in one pool;
attention and norms stay. Llama-3-8B's shape in bf16 on an A100-80 over PCIe 4, decode, batch 1, 8 and 64. Nothing is
fitted. Assumed: difficulties are lognormal (sigma 1), half of the variance by token and a quarter by layer; a module is
worth its difficulty times (its size / big)^1/4, so that the small one is worth half; FLOPs at half of the dense peak.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.collective_algorithms import LINK_EFFICIENCY
from simtool.hardware.device import load_device
from simtool.hardware.links import load_link
from simtool.models.architecture import DenseMlp
from simtool.models.config import load_architecture
from simtool.models.memory import weight_bytes
from simtool.models.routing.adaptive import budgeted_choices, choice_cost
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.modules import module_needs, module_store
from simtool.simulator.offload.policy import OffloadPolicy
from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.walk import Walk, walk

SMALL = 1 / 16  # targets.md B9
SIZES = np.array([1.0, SMALL])
BUDGETS = (1.0, 0.75, 0.5, 0.25, 0.125, SMALL)
BATCHES = (1, 8, 64)
ROOM = 0.5  # of the big modules' bytes, in HBM, where modules are offloaded
STEPS = 48
ARCHITECTURE, DEVICE = load_architecture("llama-3-8b"), load_device("a100-80g")
LAYERS, HIDDEN = len(ARCHITECTURE.layers), ARCHITECTURE.hidden_size
SMALL_WORTH = 0.25  # exponent


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """choice: int16[tokens, layers], 0 big, 1 small, -1 skip; step: [tokens]."""

    choice: NDArray[np.int16]
    step: NDArray[np.int64]
    batch: int


def module_bytes() -> tuple[int, int]:
    mlp = ARCHITECTURE.layers[0].mlp
    assert isinstance(mlp, DenseMlp)
    big = 3 * HIDDEN * mlp.intermediate_size * 2
    return big, int(SMALL * big)


def rest_bytes() -> float:
    """Of everything that every token uses: attention, norms, embeddings and head."""
    return float(weight_bytes(ARCHITECTURE) - LAYERS * module_bytes()[0])


def run_of(batch: int, budget: float) -> Run:
    rng = np.random.default_rng(0)
    tokens = STEPS * batch
    parts = (rng.standard_normal((tokens, 1)), rng.standard_normal((1, LAYERS)), rng.standard_normal((tokens, LAYERS)))
    difficulty = np.exp(sum(np.sqrt(share) * part for share, part in zip((0.5, 0.25, 0.25), parts, strict=True)))
    choice = budgeted_choices(difficulty[:, :, None] * SIZES**SMALL_WORTH, SIZES, budget)
    return Run(choice=choice, step=np.repeat(np.arange(STEPS), batch), batch=batch)


def part_s(size: float, tokens: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Seconds of a part with `size` bytes of bf16 weights: reading them, or its FLOPs; nothing for no tokens."""
    counts = np.asarray(tokens, np.float64)
    flops_s = counts * size / (0.5 * DEVICE.peak_flops("bf16"))
    return np.where(counts > 0, np.maximum(flops_s, size / DEVICE.hbm_bytes_per_s), 0.0)


def prices(batch: int) -> Prices:
    link, sizes = load_link(DEVICE.pcie), np.array(module_bytes(), np.float64)
    dense = np.zeros((1, LAYERS * 2))
    dense[0, ::2] = part_s(rest_bytes() / LAYERS, batch)
    counts = np.arange(batch + 1, dtype=np.float64)
    return Prices(
        dense_s=dense,
        expert_s=np.tile(np.stack([part_s(size, counts) for size in sizes]), (LAYERS, 1)),
        load_s=np.tile(sizes / (link.bytes_per_s * LINK_EFFICIENCY[link.kind]), LAYERS),
    )


def simulated(run: Run, room: float, policy: OffloadPolicy | None = None) -> Walk:
    """room: bytes in HBM over those of all big modules; with room for every module, all are there from the start."""
    big, small = module_bytes()
    whole = LAYERS * (big + small)
    resident = np.ones(2 * LAYERS, np.bool_) if room >= 1 else None
    bytes_ = whole if room >= 1 else int(room * LAYERS * big)
    needs = module_needs(run.choice, run.step, 2)
    store = module_store(LAYERS, (big, small), bytes_)
    return walk(store, policy or stock.lru(), needs, prices(run.batch), guess=needs, resident=resident)


def touched(run: Run) -> tuple[float, float]:
    """Share of big and of small modules that a step needs."""
    big, small = (
        np.mean([(run.choice[run.step == step] == module).any(axis=0).mean() for step in range(STEPS)])
        for module in (0, 1)
    )
    return float(big), float(small)


def speed(found: Walk, batch: int) -> float:
    """Tokens a second after the first third of the steps, in which the pool fills."""
    first = STEPS // 3
    return (STEPS - first) * batch / float(found.end_s[-1] - found.end_s[first - 1])


def main() -> None:
    big, small = module_bytes()
    print(f"modules of {big / 1e6:.0f} and {small / 1e6:.0f} MB in {LAYERS} layers, {rest_bytes() / 1e9:.2f} GB beside")
    print(f"published: small = 1/16 (here 1/{big / small:.1f}); no times; lru to hits: HBM for {ROOM:.0%} of big")
    names = (
        "batch",
        "budget",
        "FFN FLOPs",
        "big",
        "small",
        "skip",
        "big read",
        "in HBM",
        "gain",
        "lru",
        "path",
        "belady",
        "hits",
    )
    print("".join(f"{name:>10}" for name in names))
    for batch in BATCHES:
        dense = speed(simulated(run_of(batch, 1.0), 1.0), batch)
        for budget in BUDGETS:
            run = run_of(batch, budget)
            shares = [float((run.choice == module).mean()) for module in (0, 1, -1)]
            whole = speed(simulated(run, 1.0), batch)
            policies = (stock.lru(), stock.predicted_path(4), stock.belady())
            found = [simulated(run, ROOM, policy) for policy in policies]
            speeds = "".join(f"{speed(one, batch):10.2f}" for one in found)
            print(
                f"{batch:10d}{budget:10.4f}{choice_cost(run.choice, SIZES):10.4f}"
                + "".join(f"{share:10.1%}" for share in (*shares, touched(run)[0]))
                + f"{whole:10.1f}{whole / dense:10.2f}{speeds}{found[0].hit_rate:10.1%}"
            )


if __name__ == "__main__":
    main()
