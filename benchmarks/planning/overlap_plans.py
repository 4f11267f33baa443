"""Overlap plans of real layers: what no overlap, fixed chunks, list scheduling and the planner make of a layer.

    python benchmarks/planning/overlap_plans.py [--seconds 30] [--only TEXT] [--batches 1 2 3] [--progress]

A row is the most frequent layer of a real plan's step, its kernels as `simtool overlap` prices them. Periods in
microseconds; every schedule is verified, unrolled, and simulated twice: with modes as tabulated, which checks the
order, and with its kernels competing for multiprocessors, memory and links (the last column, the better of with and
without events between streams).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from simtool.hardware.cluster import parse_cluster
from simtool.models.config import load_architecture
from simtool.overlaps import STOCK
from simtool.plan import All2AllBackend, Parallel, Pool, Scheduler
from simtool.planners.schedule.kernels import KernelLayer
from simtool.planners.schedule.progress import Effort, Progress
from simtool.planners.schedule.step_plan import SolvedLayer, solve_layer
from simtool.planners.schedule.unroll import simulated_period_s
from simtool.planners.schedule.verify import check_modulo_schedule
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.overlap.kernel import device_resources
from simtool.simulator.overlap.layer_time import layer_time
from simtool.simulator.overlap.prices import LayerPrices
from simtool.simulator.overlap.step import step_prices
from simtool.simulator.priced_cluster import priced_cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A step of one data-parallel rank of a plan."""

    model: str
    devices: str
    parallel: Parallel
    batch: str

    @property
    def name(self) -> str:
        p = self.parallel
        degrees = "".join(
            f" {name}{n}" for name, n in (("tp", p.tp), ("pp", p.pp), ("dp", p.dp), ("ep", p.ep)) if n > 1
        )
        return f"{self.model} {self.devices}{degrees} {self.batch}"


LLAMA, DEEPSEEK, QWEN = "llama-3.1-70b", "deepseek-v3", "qwen3-235b-a22b"
TP8 = Parallel(tp=8)


THROUGHPUT: All2AllBackend = "deepep_high_throughput"


def ep(devices: int, backend: All2AllBackend = "deepep_low_latency") -> Parallel:
    return Parallel(dp=devices, ep=devices, all2all_backend=backend)


CASES = tuple(
    Case(model=model, devices=devices, parallel=parallel, batch=batch)
    for model, devices, parallel, batches in (
        (LLAMA, "8xh100", TP8, ("prefill:2x1024", "prefill:8x1024")),
        (LLAMA, "8xa100-80g", TP8, ("prefill:2x1024", "prefill:8x1024")),
        (LLAMA, "8xh100", TP8, ("decode:32x1024", "decode:256x1024", "decode:1024x1024")),
        (LLAMA, "8xa100-80g", TP8, ("decode:32x1024", "decode:256x1024", "decode:1024x1024")),
        (LLAMA, "8xa100-80g", TP8, ("decode:1024x768+prefill:1x1024",)),
        (QWEN, "8xh100", ep(8), ("decode:64x1024", "decode:256x1024")),
        (QWEN, "8xh100", ep(8, THROUGHPUT), ("prefill:4x1024",)),
        (DEEPSEEK, "4x8xh100", ep(32), ("decode:32x2048", "decode:64x2048", "decode:128x2048", "decode:256x2048")),
        (DEEPSEEK, "2x8xh100", ep(16), ("decode:128x2048",)),
        (DEEPSEEK, "4x8xh100", ep(32, THROUGHPUT), ("prefill:4x1024",)),
        (DEEPSEEK, "8x8xh100", ep(64), ("decode:128x2048",)),
        (DEEPSEEK, "8x8xh100", ep(64, THROUGHPUT), ("prefill:4x1024",)),
        (LLAMA, "8xh100", Parallel(tp=4, pp=2), ("decode:256x1024", "prefill:4x1024")),
        (LLAMA, "8xa100-80g", Parallel(tp=2, pp=4), ("prefill:4x1024",)),
        ("llama-3.1-405b", "2x8xh100", Parallel(tp=8, pp=2), ("decode:256x1024",)),
    )
    for batch in batches
)


def prices_of(case: Case) -> LayerPrices:
    """Prices of the most frequent layer, of the first stage that has it."""
    hardware, _ = priced_cluster(parse_cluster(case.devices), "vllm")
    limits = Scheduler(max_num_seqs=2048, max_num_batched_tokens=16384)
    pool = Pool(device=next(iter(hardware)), parallel=case.parallel, scheduler=limits)
    batch = parse_batch(case.batch)
    prices = step_prices(load_architecture(case.model), pool, hardware, batch)
    return max(prices, key=lambda price: price.kind.count)


def solved(price: LayerPrices, batches: Sequence[int], seconds: float) -> SolvedLayer:
    """Solved, verified, and never worse than its baselines."""
    answer = solve_layer(price, Effort(limit=seconds, workers=2, wall_s=seconds), batches)
    layer = KernelLayer(price=price, resources=device_resources(price.hardware.device))
    for plan in answer.plan.plans:
        problem = layer.problem([1 / plan.batches] * plan.batches)
        check_modulo_schedule(problem, plan.schedule)
        baselines = (answer.plan.none_s, plan.listed_s, plan.fixed_s)
        assert plan.certificate.bound <= plan.schedule.period_s <= min(baselines) * (1 + 1e-9)
        assert simulated_period_s(problem, plan.schedule) <= plan.schedule.period_s * (1 + 1e-6)
    return answer


def by_second(progress: Sequence[Progress]) -> list[Progress]:
    """The last row of each second."""
    return list({int(row.seconds): row for row in progress}.values())


def show(case: Case, answer: SolvedLayer, stock: dict[str, float], progress: bool) -> None:
    for plan in answer.plan.plans:
        proof = plan.certificate
        simulated = min(answer.simulated_s[plan.batches, events] for events in (True, False))
        values = (answer.plan.none_s, plan.fixed_s, plan.listed_s, plan.schedule.period_s, proof.bound)
        columns = " ".join(f"{1e6 * value:8.1f}" for value in values)
        print(
            f"{case.name:52} {plan.batches} {columns} {proof.gap:6.1%} {proof.seconds:5.1f} {1e6 * simulated:9.1f}"
            f" {proof.status}"
        )
        if progress:
            print("    " + ", ".join(f"{row.seconds:.1f} s {row.gap:.1%}" for row in by_second(plan.progress)))
    gain = answer.time.serial_s / answer.time.period_s
    say = f"{answer.batches} nano-batches, {gain:.2f}x simulated" if answer.overlaps else "do not overlap"
    best = min(stock, key=lambda name: stock[name])
    print(f"{'':52} -> {say}; best stock overlap {best}, {answer.time.serial_s / stock[best]:.2f}x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="wall seconds a number of nano-batches")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 3], help="numbers of nano-batches")
    parser.add_argument("--progress", action="store_true", help="the gap over time")
    options = parser.parse_args()
    print(
        f"{'layer':52} {'k':>1} {'none':>8} {'fixed':>8} {'list':>8} {'planned':>8} {'bound':>8} {'gap':>6} {'s':>5}"
        f" {'simulated':>9}"
    )
    gaps: dict[int, list[float]] = {}
    for case in CASES:
        if options.only not in case.name:
            continue
        price = prices_of(case)
        answer = solved(price, options.batches, options.seconds)
        stock = {
            name: layer_time(price, overlap, price.hardware, price.kind).period_s for name, overlap in STOCK.items()
        }
        show(case, answer, stock, options.progress)
        for plan in answer.plan.plans:
            gaps.setdefault(plan.batches, []).append(plan.certificate.gap)
    for count, found in gaps.items():
        within = ", ".join(f"{sum(gap <= limit for gap in found)} within {limit:.0%}" for limit in (0.1, 0.15))
        print(f"{count} nano-batches: {len(found)} layers, {within}, worst {max(found, default=inf):.1%}")


if __name__ == "__main__":
    main()
