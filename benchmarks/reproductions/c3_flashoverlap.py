"""C3: FlashOverlap, a GEMM that signals after groups of waves, each of which a collective of its own sends.

    python benchmarks/reproductions/c3_flashoverlap.py

Mechanism: `Fusion(waves=..., separate="messages")`: the GEMM runs in waves on what NCCL's two multiprocessors leave,
W = ceil(tiles / (SM - 2)); each group's message starts when it is computed and the one before it is sent, and pays its
own latency and its size's bandwidth. The grouping is found by simulating them. Beside each stands the paper's
predictor, end = max(computed, sent) + latency(bytes) over the groups: a closed form that knows no contention.
Nothing is fitted. Prices are the catalogue's: GEMMs of A100 and RTX 4090 (the A800 is an A100 with 400 GB/s of NVLink),
NCCL's curves scaled to those links; the RTX 4090's PCIe curve is transferred from L40S, whose interval is a factor 2.6.
Assumed: the shapes (the paper's rows are not at hand), tiles of 128 x 128.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np

from simtool.hardware.cluster import node_group
from simtool.hardware.device import Device, load_device
from simtool.hardware.fitted import load_cost_model
from simtool.models.lowering_kernels import collective, gemm
from simtool.models.operators import Array, Collective
from simtool.plan import Fusion, Overlap
from simtool.simulator.overlap.kernel import Kernel, device_resources, make_kernel
from simtool.simulator.overlap.layers import layer_graph
from simtool.simulator.step_costs import StageHardware
from simtool.simulator.tasks.simulate import simulate_tasks

PUBLISHED_MOST = 1.65  # targets.md C3
NCCL_SMS = 2
UNITS = 8  # waves are grouped in at most so many units
COLLECTIVES: tuple[Collective, ...] = ("all_reduce", "reduce_scatter", "all_to_all")
ROWS, INNER, COLUMNS = (2048, 4096, 8192, 16384), (1024, 2048, 4096, 8192), 8192
RANKS = {"a800": (2, 4, 8), "rtx-4090": (2, 4)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A GEMM [m, k] x [k, n] and the collective of its output; `known` keeps messages by their share."""

    gemm: Kernel
    sent: dict[float, Kernel]
    kind: Collective
    message: Array
    ranks: int
    hardware: StageHardware

    def __call__(self, share: float) -> tuple[Kernel, Kernel]:
        """The GEMM, and the message of a share of its output."""
        if share not in self.sent:
            operator = collective(
                self.kind,
                self.kind,
                count=1,
                message_bytes=share * self.message,
                ranks=self.ranks,
                nodes=1,
                dtype="fp16",
            )
            self.sent[share] = make_kernel(operator, self.hardware)
        return self.gemm, self.sent[share]

    @property
    def serial_s(self) -> float:
        """One after the other, the GEMM on the whole device."""
        return sum(kernel.seconds for kernel in self(1.0))

    @property
    def left(self) -> int:
        """Multiprocessors of the GEMM."""
        return self.hardware.device.sm_count - NCCL_SMS

    @property
    def waves(self) -> int:
        return math.ceil(self.gemm.tiles / self.left)


def device(name: str) -> Device:
    if name != "a800":
        return load_device(name)
    return replace(load_device("a100-80g"), name="a800", aliases=(), scale_up_bytes_per_s=200e9)


def stage(name: str, ranks: int) -> StageHardware:
    one = device(name)
    group = node_group(one, nodes=1, devices_per_node=ranks)
    return StageHardware(device=one, cost_model=load_cost_model(one, group, "vllm"), devices_per_node=ranks)


def make_pair(hardware: StageHardware, kind: Collective, rows: int, inner: int) -> Pair:
    operator = gemm(
        "gemm", count=1, m=np.array([float(rows)]), n=COLUMNS, k=inner, dtype="fp16", activation_dtype="fp16"
    )
    message = np.array([2.0 * rows * COLUMNS])
    ranks = hardware.devices_per_node
    return Pair(
        gemm=make_kernel(operator, hardware), sent={}, kind=kind, message=message, ranks=ranks, hardware=hardware
    )


def simulated_s(pair: Pair, groups: tuple[int, ...]) -> float:
    fusion = Fusion(collective=pair.kind, chunks=1, waves=groups, separate="messages")
    overlap = Overlap(fusions=(fusion,), comm_sms=NCCL_SMS, fixed_sms=True)
    graph = layer_graph(pair, overlap, 1, device_resources(pair.hardware.device))
    return simulate_tasks(graph).makespan_s


def predicted_s(pair: Pair, groups: tuple[int, ...]) -> float:
    """The paper's predictor."""
    kernel, device_waves = pair.gemm, math.ceil(pair.gemm.tiles / pair.hardware.device.sm_count)
    wave_s = (kernel.seconds - kernel.latency_s) / device_waves
    done, computed, sent = 0, kernel.latency_s, 0.0
    for group in groups:
        tiles = min((done + group) * pair.left, kernel.tiles) - done * pair.left
        done, computed = done + group, computed + group * wave_s
        sent = max(computed, sent) + pair(tiles / kernel.tiles)[1].seconds
    return sent


def groupings(waves: int) -> Iterator[tuple[int, ...]]:
    """All ways to cut the waves at units of equal numbers of them."""
    unit = math.ceil(waves / UNITS)
    cuts = range(unit, waves, unit)
    for chosen in product((False, True), repeat=len(cuts)):
        ends = [0, *(cut for cut, use in zip(cuts, chosen, strict=True) if use), waves]
        yield tuple(end - start for start, end in pairwise(ends))


def best_grouping(pair: Pair) -> tuple[float, tuple[int, ...]]:
    """(seconds, groups) of the fastest simulated grouping."""
    return min((simulated_s(pair, groups), groups) for groups in groupings(pair.waves))


def main() -> None:
    print(f"published: up to {PUBLISHED_MOST}x; nothing fitted")
    print(
        f"{'device':9} {'ranks':>5} {'collective':15} {'best':>6} {'median':>6}  best m, k, groups of waves, predictor"
    )
    most, errors = 1.0, []
    for name, counts in RANKS.items():
        for ranks, kind in product(counts, COLLECTIVES):
            hardware, rows = stage(name, ranks), []
            for m, k in product(ROWS, INNER):
                pair = make_pair(hardware, kind, m, k)
                if pair.gemm.tiles == 0:  # bound by memory: no waves
                    continue
                seconds, groups = best_grouping(pair)
                errors.append(predicted_s(pair, groups) / seconds - 1)
                rows.append((pair.serial_s / seconds, m, k, groups, predicted_s(pair, groups) / seconds - 1))
            gains, best = sorted(row[0] for row in rows), max(rows)
            most = max(most, best[0])
            print(
                f"{name:9} {ranks:5} {kind:15} {best[0]:5.2f}x {gains[len(gains) // 2]:5.2f}x"
                f"  {best[1]}, {best[2]}, {'+'.join(map(str, best[3]))}, {best[4]:+.2%}"
            )
    worst = max(abs(error) for error in errors)
    print(f"most: {most:.2f}x ({most / PUBLISHED_MOST - 1:+.1%}); the predictor is off by at most {worst:.3%}")


if __name__ == "__main__":
    main()
