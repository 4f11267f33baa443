"""C4: two-batch overlap of DeepSeek-V3's decode on H100, by tokens a device.

    python benchmarks/reproductions/c4_two_batch_overlap.py

Published by SGLang's authors (large-scale expert parallelism on 96 H100): throughput against the same engine without
overlap. Mechanism: the stock overlap "two-batch" on the layers of one step; halves of the batch are priced as such
(weights are read again, expert kernels keep their floor) and run on the resources that each kernel needs. Nothing is
fitted and nothing varies by row. Assumed: 9 nodes of 8 devices with 400 Gb/s a device, EP72 with 32 redundant experts
(288 slots, 4 a device), DeepEP's low-latency kernels, even routing, 2,000 cached tokens a request, SGLang's kernel
tables carried from H200. Embedding, head and host are left out. Without overlap one kernel runs after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simtool.hardware.cluster import parse_cluster
from simtool.models.architecture import ModelArchitecture, MoeMlp
from simtool.models.config import load_architecture
from simtool.overlaps import STOCK
from simtool.plan import Parallel, Pool, Scheduler
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.overlap.step import overlapped_step
from simtool.simulator.priced_cluster import priced_cluster

PUBLISHED = {32: -0.27, 64: None, 128: None, 256: 0.255}  # targets.md C4; break-even between 64 and 128
RANKS, SLOTS, CACHED_TOKENS = 72, 288, 2000
POOL = Pool(
    device="h100-sxm",
    parallel=Parallel(dp=RANKS, ep=RANKS, all2all_backend="deepep_low_latency"),
    scheduler=Scheduler(max_num_seqs=1024, max_num_batched_tokens=8192),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """Seconds of the layers of a step with and without the overlap."""

    serial_s: float
    overlapped_s: float
    exposed_s: float

    @property
    def gain(self) -> float:
        """Throughput with the overlap against without, less one."""
        return self.serial_s / self.overlapped_s - 1.0


def with_slots(arch: ModelArchitecture, slots: int) -> ModelArchitecture:
    """`arch` with so many expert slots: copies of experts are experts to whoever places and prices them."""
    layers = (
        replace(layer, mlp=replace(layer.mlp, num_experts=slots)) if isinstance(layer.mlp, MoeMlp) else layer
        for layer in arch.layers
    )
    return replace(arch, layers=tuple(layers))


def decode(tokens: int) -> Decode:
    """One decode step of `tokens` requests a device."""
    hardware, _ = priced_cluster(parse_cluster(f"{RANKS // 8}x8xh100"), "sglang")
    arch = with_slots(load_architecture("deepseek-v3"), SLOTS)
    batch = parse_batch(f"decode:{tokens}x{CACHED_TOKENS}")
    found = overlapped_step(arch, POOL, hardware, batch, STOCK["two-batch"])
    return Decode(serial_s=found.serial_s, overlapped_s=found.seconds, exposed_s=found.exposed_s)


def main() -> None:
    print(f"{'tokens':>6} {'published':>9} {'simulated':>9} {'error':>11} {'serial':>9} {'overlapped':>10} ms")
    gains = {}
    for tokens, published in PUBLISHED.items():
        step = decode(tokens)
        gains[tokens] = step.gain
        told = f"{'':>9} {step.gain:+9.1%} {'':>11}"
        if published is not None:
            told = f"{published:+9.1%} {step.gain:+9.1%} {100 * (step.gain - published):+7.1f} pts"
        print(f"{tokens:6d} {told} {step.serial_s * 1e3:9.1f} {step.overlapped_s * 1e3:10.1f}")
    even = next(tokens for tokens in range(32, 257, 8) if decode(tokens).gain >= 0)
    print(f"break-even: published between 64 and 128, simulated at {even}")


if __name__ == "__main__":
    main()
