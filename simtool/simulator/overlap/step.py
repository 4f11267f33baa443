"""The layers of one step of a pool under an Overlap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.models.layer_chain import layer_kinds
from simtool.plan import Overlap, Pool
from simtool.simulator.batch_text import StepText
from simtool.simulator.compile import stage_hardware
from simtool.simulator.explain import check_batch
from simtool.simulator.grids import capture_sizes, padded_tokens
from simtool.simulator.overlap.layer_time import LayerTime, layer_time
from simtool.simulator.overlap.prices import LayerPrices
from simtool.simulator.step_costs import StageHardware, stage_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlappedStep:
    """All layers of all stages of a step; embedding, head and host are left out, nothing of them overlaps."""

    overlap: Overlap | None  # None: a schedule of its own
    layers: tuple[LayerTime, ...]

    @property
    def serial_s(self) -> float:
        """One kernel after the other, and no KV sent to a decode pool."""
        return math.fsum(time.kind.count * time.serial_s for time in self.layers)

    @property
    def seconds(self) -> float:
        """With the overlap."""
        return math.fsum(time.seconds for time in self.layers)

    @property
    def exposed_s(self) -> float:
        """Communication that nothing hides."""
        return math.fsum(time.kind.count * time.exposed_s for time in self.layers)

    @property
    def kv_bytes(self) -> float:
        """KV of the new tokens that a rank sends to the decode pool, over all stages."""
        return math.fsum(time.kind.count * time.kv_bytes for time in self.layers)

    @property
    def kv_exposed_s(self) -> float:
        """Sending of KV that nothing hides."""
        return math.fsum(time.kv_exposed_s for time in self.layers)

    @property
    def lower_s(self) -> float:
        """No schedule of these tasks takes less."""
        return math.fsum(time.kind.count * time.lower_s for time in self.layers)


def overlapped_step(
    arch: ModelArchitecture,
    pool: Pool,
    hardware: Mapping[str, StageHardware],
    batch: StepText,
    overlap: Overlap,
) -> OverlappedStep:
    """The layers of one step of a replica of `pool`; arguments as `explain_step` takes them.

    Raises InputError for a batch that the scheduler would not form, and for a CPU, which runs one kernel at a time.
    """
    least = overlap.least_tokens(prompts=bool(batch.chunks))
    used = overlap.fallback if batch.tokens < least else overlap
    prices = step_prices(arch, pool, hardware, batch, kv_nodes=used.kv_nodes)
    times = [layer_time(price, used, price.hardware, price.kind) for price in prices]
    return OverlappedStep(overlap=used, layers=tuple(times))


def step_prices(
    arch: ModelArchitecture, pool: Pool, hardware: Mapping[str, StageHardware], batch: StepText, *, kv_nodes: int = 0
) -> list[LayerPrices]:
    """Prices of each kind of layer of each stage; arguments and errors as those of `overlapped_step`.

    kv_nodes: see `Overlap.kv_nodes`.
    """
    check_batch(arch, pool, batch)
    padded = float(padded_tokens(batch.tokens, capture_sizes(pool.scheduler))[-1])
    stages = stage_hardware(pool, hardware)
    for found in stages:
        if found.device.kind == "cpu":
            raise InputError(found.device.name, "runs one kernel at a time: nothing of a step overlaps", "ask for GPUs")
    shards = stage_shards(arch, pool.parallel, stages, kv_dtype=pool.kv.dtype)
    return [
        LayerPrices(shard=shard, hardware=found, kind=kind, batch=batch, tokens=padded, kv_nodes=kv_nodes)
        for shard, found in zip(shards, stages, strict=True)
        for kind in layer_kinds(shard)
    ]
