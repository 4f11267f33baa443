"""C1: T3, a GEMM whose stages trigger the steps of its ring reduce-scatter, gains by sub-layer.

    python benchmarks/reproductions/c1_t3.py

Mechanism: the GEMM runs in as many chunks as there are devices; each of the first n - 1 sets off a step of the ring,
the device's own chunk goes last (`local_last`); sums are made in memory (`reduces_in_memory`), and the first chunk is
stored at the neighbour at once. "first" has the memory serve compute first (`compute_first`). No multiprocessor
communicates; an all-gather follows. The device is 80 units at 1.4 GHz, 114.7 TFLOP/s of fp16 (1024 FLOP a cycle and
unit, as V100, whose simulator T3 extends), 16 MiB of L2, 1 TB/s; GEMMs are priced by the catalogue's law for
a device that nobody measured. Links: 500 ns a step, and 150 GB/s each way, or 75 if 150 is both ways together.
Fitted: the multiprocessors that an all-reduce needs for its full speed, on the published +41% on 8 of 80.
Assumed: sub-layers are the output projection and FC-2 forward, FC-1 and the input projection backward; tokens 16K for
Mega-GPT-2, 8K for T-NLG, 4K for the others, tensor-parallel over 8 and 16 (the others 32).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simtool.hardware.cluster import node_group
from simtool.hardware.device import Device, load_device
from simtool.hardware.fitted import load_cost_model
from simtool.models.lowering_kernels import gemm
from simtool.plan import Fusion, Overlap
from simtool.simulator.overlap.kernel import Kernel, device_resources, make_kernel
from simtool.simulator.overlap.layers import layer_graph
from simtool.simulator.step_costs import StageHardware
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.timeline import Timeline
from simtool.units import MIB

PUBLISHED = {"plain": 1.20, "first": 1.30, "ideal": 1.35}  # targets.md C1, geometric means; data movement -22%
PUBLISHED_MOVED = -0.22
ALONE, SHARED, SLOWER = 1.67, 1.18, 1.41  # GEMM beside an all-reduce: ideal, on 8 of 80 units, which slow it by 41%
COMM_UNITS = 8
FULL_UNITS = COMM_UNITS * SLOWER  # fitted
STEP_S, ELEMENT_BYTES = 500e-9, 2.0
SMALL = {"Mega-GPT-2": (3072, 16384), "T-NLG": (4256, 8192)}  # hidden size, tokens
LARGE = {"GPT-3": (12288, 4096), "PALM": (18432, 4096), "MT-NLG": (20480, 4096)}
INPUTS = {"OP fwd": 1, "FC-2 fwd": 4, "FC-1 bwd": 4, "IP bwd": 3}  # summed dimension in hidden sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class SubLayer:
    """[tokens, inner / ranks] x [inner / ranks, hidden], whose output is summed over the ranks."""

    name: str
    tokens: int
    hidden: int
    inner: int
    ranks: int

    @property
    def output_bytes(self) -> float:
        return self.tokens * self.hidden * ELEMENT_BYTES


def sub_layers(models: dict[str, tuple[int, int]], degrees: Sequence[int]) -> Iterator[SubLayer]:
    for model, (hidden, tokens) in models.items():
        for ranks in degrees:
            for name, times in INPUTS.items():
                label = f"{model} TP{ranks} {name}"
                yield SubLayer(name=label, tokens=tokens, hidden=hidden, inner=times * hidden, ranks=ranks)


def hardware() -> StageHardware:
    device: Device = replace(
        load_device("v100-32g"),
        name="t3",
        aliases=(),
        flops={"fp32": 15.7e12, "fp16": 80 * 1.4e9 * 1024},
        hbm_bytes_per_s=1e12,
        l2_bytes=16 * MIB,
        sm_count=80,
        boost_hz=1.4e9,
    )
    group = node_group(device, nodes=1, devices_per_node=8)
    return StageHardware(device=device, cost_model=load_cost_model(device, group, "vllm"), devices_per_node=8)


def ring(name: str, one: SubLayer, link: float, passes: float, sums: float, steps: int) -> Kernel:
    """`steps` of a ring with an output's n-th part each. passes, sums: n-th parts that the memory moves, and of them
    those that only sums need.
    """
    part = one.output_bytes / one.ranks
    busy, latency = steps * part / link, steps * STEP_S
    return Kernel(
        name=name,
        family="collective",
        seconds=busy + latency,
        latency_s=latency,
        work={"nvlink": busy, "hbm": passes * part},
        sum_share=sums / passes,
    )


def kernels(one: SubLayer, found: StageHardware, link: float, *, direct: bool) -> tuple[Kernel, ...]:
    """GEMM, reduce-scatter, all-gather. direct: the first chunk is neither written nor read in the own memory."""
    n, rows = one.ranks, np.array([float(one.tokens)])
    operator = gemm("gemm", count=1, m=rows, n=one.hidden, k=one.inner / n, dtype="fp16", activation_dtype="fp16")
    multiplied, saved = make_kernel(operator, found), 1.0 if direct else 0.0
    stored = multiplied.work["hbm"] - saved * one.output_bytes / n
    # Reads: the first chunk to send it, two addends of each other one. Writes: what arrives, and the last sum.
    scatter = ring("reduce_scatter", one, link, (2 * n - 1) + n - saved, n + 1.0, n - 1)
    gather = ring("all_gather", one, link, 2.0 * (n - 1), 0.0, n - 1)
    return replace(multiplied, work={**multiplied.work, "hbm": stored}), scatter, gather


def triggered(ranks: int, *, first: bool) -> Overlap:
    fusion = Fusion(collective="reduce_scatter", chunks=ranks - 1, local_last=1.0 / ranks)
    return Overlap(fusions=(fusion,), network_stream=True, reduces_in_memory=True, compute_first=first)


def run(made: Sequence[Kernel], overlap: Overlap, found: StageHardware) -> Timeline:
    return simulate_tasks(layer_graph(lambda _share: made, overlap, 1, device_resources(found.device)))


def moved_bytes(timeline: Timeline) -> float:
    return math.fsum(task.work.get("hbm", 0.0) for task in timeline.graph.tasks)


def gains(one: SubLayer, found: StageHardware, link: float) -> dict[str, float]:
    """Speed-ups over GEMM, reduce-scatter, all-gather in turn; "moved": bytes of memory over theirs.

    "busy": how much of the memory's rate the plain one uses.
    """
    made = kernels(one, found, link, direct=False)
    apart = run(made, Overlap(), found)
    multiplied, scattered, gathered = (kernel.seconds for kernel in made)
    fused = kernels(one, found, link, direct=True)
    plain, first = (run(fused, triggered(one.ranks, first=which), found) for which in (False, True))
    return {
        "plain": apart.makespan_s / plain.makespan_s,
        "first": apart.makespan_s / first.makespan_s,
        "ideal": apart.makespan_s / (max(multiplied, scattered) + gathered),
        "moved": moved_bytes(first) / moved_bytes(apart),
        "busy": moved_bytes(plain) / plain.makespan_s / found.device.hbm_bytes_per_s,
    }


def geomean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


def beside_all_reduce(multiplied: Kernel, reduce_s: float, found: StageHardware, units: int) -> float:
    """Gain of a GEMM beside an all-reduce that is no part of it, on `units` multiprocessors (0: on none)."""
    reduce = Kernel(
        name="all_reduce", family="collective", seconds=reduce_s, latency_s=0.0, work={"nvlink": reduce_s}, branch=True
    )
    overlap = Overlap(network_stream=True, comm_sms=units, full_comm_sms=FULL_UNITS if units else 0.0)
    return (multiplied.seconds + reduce_s) / run((multiplied, reduce), overlap, found).makespan_s


def print_contention(found: StageHardware) -> None:
    """The published ideal gain sets how long the all-reduce is against the GEMM: half as long again, or the inverse."""
    one = SubLayer(name="", tokens=8192, hidden=4256, inner=4 * 4256, ranks=8)
    multiplied = kernels(one, found, 150e9, direct=False)[0]
    print(
        f"fitted: {FULL_UNITS:.1f} units for an all-reduce's full speed; published beside a GEMM {ALONE}x and {SHARED}x"
    )
    for ratio in (1 / (ALONE - 1), ALONE - 1):
        ideal, shared = (
            beside_all_reduce(multiplied, ratio * multiplied.seconds, found, units) for units in (0, COMM_UNITS)
        )
        print(
            f"  all-reduce {ratio:.2f} of the GEMM: ideal {ideal:.2f}x, on 8 units {shared:.2f}x"
            f" ({shared / SHARED - 1:+.1%})"
        )


def print_gains(title: str, ones: Sequence[SubLayer], found: StageHardware, link: float, published: bool) -> None:
    rows = [gains(one, found, link) for one in ones]
    mean = {name: geomean([row[name] for row in rows]) for name in rows[0]}
    print(f"{title}, {link / 1e9:.0f} GB/s: {len(rows)} sub-layers, geometric means (most)")
    for name in ("plain", "first", "ideal"):
        beside = f"  published {PUBLISHED[name]:.2f}x  {mean[name] / PUBLISHED[name] - 1:+.1%}" if published else ""
        print(f"  {name:6} {mean[name]:.2f}x ({max(row[name] for row in rows):.2f}x){beside}")
    beside = f"  published {PUBLISHED_MOVED:+.0%}" if published else ""
    print(f"  memory {mean['moved'] - 1:+.1%}{beside}; {mean['busy']:.0%} of its rate is used")


def main() -> None:
    found = hardware()
    print_contention(found)
    for link in (150e9, 75e9):
        print_gains("Mega-GPT-2, T-NLG", list(sub_layers(SMALL, (8, 16))), found, link, published=True)
        print_gains("GPT-3, PALM, MT-NLG", list(sub_layers(LARGE, (32,))), found, link, published=False)


if __name__ == "__main__":
    main()
