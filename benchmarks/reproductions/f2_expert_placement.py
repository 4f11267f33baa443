"""F2: mean over highest GPU load: greedy, planned, bound; on Zipf loads and on the counts of OLMoE and Mixtral.

    python benchmarks/reproductions/f2_expert_placement.py [--rows f2|zipf|counts]

Nothing is fitted. Part 1 is F2 of the targets, which gives the loads' law (Zipf 1.5) but not the loads; here they are
rank^-1.5 itself. Part 2: improvement over the greedy by skew. Part 3: counts published with OLMoE and Mixtral, where
../shared has them. A row whose greedy is near enough (0.1% from the bound) needs no planning, and says so.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.expert_loads import read_expert_loads
from simtool.planners.experts.layer import LayerPlan
from simtool.planners.experts.plan import NEAR, place_experts
from simtool.planners.experts.problem import ExpertProblem

SHARED = Path(os.environ.get("SIMTOOL_SHARED", Path(__file__).resolve().parents[3] / "shared"))
COUNTS = SHARED / "data" / "moe_routing" / "olmoe_mixtral" / "expert_counts.csv"
# experts, replicas, GPUs: published greedy, published best, both mean over highest load under Zipf 1.5 (targets.md F2)
PUBLISHED = {(64, 80, 16): (0.864, 0.9956), (256, 288, 32): (0.831, 0.9977)}
SIZES = (
    (8, 8, 8),
    (8, 16, 8),
    (16, 32, 16),
    (32, 48, 16),
    (64, 64, 8),
    (64, 80, 16),
    (64, 128, 64),
    (128, 128, 16),
    (128, 160, 32),
    (256, 256, 64),
    (256, 288, 32),
    (256, 320, 64),
)
POWERS = (0.5, 0.75, 1.0, 1.25, 1.5)
MODELS = {"olmoe-1b-7b": ((64, 8), (80, 8), (80, 16)), "mixtral-8x7b": ((8, 8), (16, 8), (24, 8))}


def zipf(experts: int, power: float) -> NDArray[np.float64]:
    return np.asarray(np.arange(1, experts + 1, dtype=np.float64)[None, :] ** -power)


def row(loads: NDArray[np.float64], replicas: int, gpus: int) -> tuple[str, LayerPlan, float]:
    """(text, plan, mean over planned highest load) of one layer."""
    started = time.monotonic()
    (one,) = place_experts(ExpertProblem(loads=loads, gpus=gpus, slots=replicas // gpus)).layers
    seconds = time.monotonic() - started
    mean, greedy = float(loads.sum() / gpus), one.greedy_measures.highest_load
    assert one.load.objective <= greedy * (1 + 1e-9), "worse than the greedy"
    enough = (
        "greedy is enough" if greedy * (1 - NEAR) <= one.load.bound else f"{1 - one.load.objective / greedy:.1%} less"
    )
    text = (
        f"{mean / greedy:7.4f} {mean / one.load.objective:7.4f} {mean / one.load.bound:7.4f} {one.load.gap:6.2%}"
        f" {enough:>16} {seconds:6.1f} s"
    )
    return text, one, mean / one.load.objective


HEAD = f"{'greedy':>7} {'planned':>7} {'bound':>7} {'gap':>6} {'highest load':>16} {'':>8}"


def part_one() -> None:
    print(f"{'experts/slots/GPUs':20} {'published: greedy':>17} {'best':>7} {HEAD} {'over best':>9}")
    for (experts, replicas, gpus), (greedy, best) in PUBLISHED.items():
        text, _, found = row(zipf(experts, 1.5), replicas, gpus)
        print(f"{f'{experts}/{replicas}/{gpus}':20} {greedy:17.3f} {best:7.4f} {text} {found / best - 1:+9.2%}")


def part_two() -> None:
    print(f"\n{'experts/slots/GPUs':20} {'Zipf':>5} {HEAD}")
    for experts, replicas, gpus in SIZES:
        for power in POWERS:
            print(
                f"{f'{experts}/{replicas}/{gpus}':20} {power:5} {row(zipf(experts, power), replicas, gpus)[0]}",
                flush=True,
            )


def part_three() -> None:
    if not COUNTS.is_file():
        print(f"\nno counts at {COUNTS}: skipped")
        return
    print(f"\n{'counts':24} {'layer':>5} {'slots/GPUs':>10} {HEAD}")
    for model, sizes in MODELS.items():
        for domain in ("arxiv", "c4", "wikipedia"):
            table = read_expert_loads(COUNTS, {"model": model, "domain": domain, "selection": "topk"})
            for layer, loads in zip(table.layers, table.loads, strict=True):
                for replicas, gpus in sizes:
                    text = row(loads[None, :], replicas, gpus)[0]
                    print(f"{f'{model} {domain}':24} {layer:5} {f'{replicas}/{gpus}':>10} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", choices=("f2", "zipf", "counts"), help="only one part")
    rows = parser.parse_args().rows
    for name, part in (("f2", part_one), ("zipf", part_two), ("counts", part_three)):
        if rows in (None, name):
            part()


if __name__ == "__main__":
    main()
