"""Explain: where one step's time goes, operator by operator, beside what the hardware allows at best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from simtool.errors import InputError
from simtool.hardware.cost import Provenance
from simtool.models.architecture import ModelArchitecture
from simtool.models.lowering import head_operators, token_operators, transfer_operators
from simtool.models.lowering_attention import decode_operators, prefill_operators
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import Shard
from simtool.models.operators import Array, Operator
from simtool.plan import Pool
from simtool.simulator.batch_text import StepText
from simtool.simulator.compile import stage_hardware
from simtool.simulator.cpu_engine import pool_on
from simtool.simulator.grids import capture_sizes, padded_tokens
from simtool.simulator.host import HostOverhead
from simtool.simulator.step_costs import StageHardware, quadrature, stage_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """One operator of one stage, all `count` calls together.

    share: of all operators' seconds. roofline_share: the specification's floor over the prediction (1: at the floor).
    flops_per_s, hbm_bytes_per_s, link_bytes_per_s: achieved by one device.
    """

    stage: int
    name: str
    family: str
    dtype: str
    count: int
    seconds: float
    lower_s: float
    upper_s: float
    share: float
    roofline_share: float
    flops_per_s: float
    hbm_bytes_per_s: float
    link_bytes_per_s: float
    provenance: Provenance
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepExplanation:
    """A step of one replica, stages one after the other.

    seconds = device seconds + gap_s + host_s (not where scheduling is asynchronous: then the larger counts), with the
    ends of the interval. compute_s, memory_s, link_s: the step's work at full rate of each resource; t_lower_s is their
    largest (everything overlaps), t_upper_s their sum (nothing does). padded_tokens: computed under CUDA graphs.
    launch_bound_s: what launching kernels without a graph adds. gap_s: device idle between steps. host_source: of
    the host's times.
    """

    batch: StepText
    rows: tuple[OperatorRow, ...]
    tokens: int
    padded_tokens: int
    seconds: float
    lower_s: float
    upper_s: float
    host_s: float
    launch_bound_s: float
    gap_s: float
    compute_s: float
    memory_s: float
    link_s: float
    host_source: str

    @property
    def t_lower_s(self) -> float:
        """The step if all resources overlapped perfectly."""
        return max(self.compute_s, self.memory_s, self.link_s)

    @property
    def t_upper_s(self) -> float:
        """The step at full rates if nothing overlapped."""
        return self.compute_s + self.memory_s + self.link_s


def explain_step(
    arch: ModelArchitecture,
    pool: Pool,
    hardware: Mapping[str, StageHardware],
    batch: StepText,
    *,
    host: HostOverhead,
) -> StepExplanation:
    """Price `batch` on one replica of `pool`; with data parallelism every rank runs this batch.

    hardware: device name → device, cost model, node size. Raises InputError for a batch that the scheduler would not
    form or a context beyond the model's limit.
    """
    stages = stage_hardware(pool, hardware)
    pool = pool_on(pool, [found.device for found in stages])
    check_batch(arch, pool, batch)
    sizes = capture_sizes(pool.scheduler)
    padded = float(padded_tokens(batch.tokens, sizes)[-1])
    rows: list[OperatorRow] = []
    floors, launch_s = np.zeros(3), 0.0
    shards = stage_shards(arch, pool.parallel, stages, kv_dtype=pool.kv.dtype)
    for stage, (shard, found) in enumerate(zip(shards, stages, strict=True)):
        dense = token_operators(shard, _one(padded))
        operators = dense + _rest(shard, batch, padded)
        priced = [_row(stage, operator, found) for operator in operators]
        rows += [row for row, _ in priced]
        floors += np.sum([floor for _, floor in priced], axis=0)
        if batch.tokens > (sizes[-1] if sizes else 0):
            launches = sum(operator.count * operator.launches for operator in operators)
            dense_s = sum(row.seconds for row, _ in priced[: len(dense)])
            launch_s += max(0.0, launches * host.eager_launch_s - dense_s)
    return _explanation(pool, batch, rows, floors, padded, launch_s, host)


def check_batch(arch: ModelArchitecture, pool: Pool, batch: StepText) -> None:
    """Raise InputError for a batch that the pool's scheduler would not form."""
    scheduler = pool.scheduler
    if batch.tokens > scheduler.max_num_batched_tokens:
        rule = f"has {batch.tokens} new tokens, a step takes at most {scheduler.max_num_batched_tokens}"
        raise InputError(batch.text, rule, "give a smaller batch or a plan with larger max_num_batched_tokens")
    if batch.requests > scheduler.max_num_seqs:
        rule = f"has {batch.requests} requests, a step takes at most {scheduler.max_num_seqs}"
        raise InputError(batch.text, rule, "give a smaller batch or a plan with larger max_num_seqs")
    longest = scheduler.max_model_len or arch.max_position_embeddings
    if batch.longest_tokens > longest:
        raise InputError(batch.text, f"has a context of {batch.longest_tokens} tokens, the model takes {longest}")


def _one(value: float) -> Array:
    return np.array([float(value)])


def _rest(shard: Shard, batch: StepText, padded: float) -> list[Operator]:
    """All but the dense part: experts on all ranks' tokens, attention, head, transfer."""
    operators = expert_operators(shard, _one(padded * shard.parallel.dp))
    for chunk in batch.chunks:
        operators += prefill_operators(shard, _one(chunk.requests), _one(chunk.new_tokens), _one(chunk.context_tokens))
    if batch.decodes:
        operators += _decodes(shard, batch)
    if shard.last:
        operators += head_operators(shard, _one(batch.requests))
    return operators + transfer_operators(shard, _one(padded))


def _decodes(shard: Shard, batch: StepText) -> list[Operator]:
    """Decode operators at the mean KV length; unequal lengths also tell the longest, as the operator sees it."""
    mean, longest = batch.decode_kv_tokens / batch.decodes, batch.longest_decode_tokens
    equal, far = (
        decode_operators(shard, _one(batch.decodes), _one(length), beside_prefill=_one(len(batch.chunks)))
        for length in (mean, longest)
    )
    if longest == mean:
        return equal
    lengths = [other.dims.get("kv_len") for other in far]
    return [
        operator if length is None else replace(operator, dims={**operator.dims, "kv_max": length})
        for operator, length in zip(equal, lengths, strict=True)
    ]


def _row(stage: int, operator: Operator, hardware: StageHardware) -> tuple[OperatorRow, Array]:
    """The row, and its seconds at full rate of [compute, memory, link]. Its share is not known yet (0)."""
    cost, device, count = hardware.cost_model.price(operator), hardware.device, operator.count
    each, roofline_s = float(cost.seconds[0]), float(cost.roofline_s[0])
    flops, moved = float(operator.flops[0]), float(operator.hbm_bytes[0])
    sent = float(operator.link_bytes[0])
    if operator.family == "collective":
        floor = np.array([0.0, 0.0, count * roofline_s])
    else:
        floor = count * np.array([flops / device.peak_flops(operator.dtype), moved / device.hbm_bytes_per_s, 0.0])
    per_second = 1.0 / each if each > 0 else 0.0
    row = OperatorRow(
        stage=stage,
        name=operator.name,
        family=operator.family,
        dtype=operator.dtype,
        count=count,
        seconds=count * each,
        lower_s=count * float(cost.lower[0]),
        upper_s=count * float(cost.upper[0]),
        share=0.0,
        roofline_share=roofline_s * per_second,
        flops_per_s=flops * per_second,
        hbm_bytes_per_s=moved * per_second,
        link_bytes_per_s=sent * per_second,
        provenance=cost.provenance,
        source=cost.source,
    )
    return row, floor


def _explanation(
    pool: Pool,
    batch: StepText,
    rows: list[OperatorRow],
    floors: Array,
    padded: float,
    launch_s: float,
    host: HostOverhead,
) -> StepExplanation:
    device_s = sum(row.seconds for row in rows)
    below: dict[str, Array] = {}
    above: dict[str, Array] = {}
    for row in rows:
        below[row.family] = below.get(row.family, np.zeros(1)) + (row.seconds - row.lower_s)
        above[row.family] = above.get(row.family, np.zeros(1)) + (row.upper_s - row.seconds)
    host_s = host.base_s + host.per_request_s * batch.requests
    fixed = 0.0 if pool.scheduler.async_scheduling else host_s
    least = host_s - fixed  # an asynchronous scheduler still bounds the step
    down, up = float(np.max(quadrature(below))), float(np.max(quadrature(above)))
    ends = [max(least, device_s + shift + launch_s + host.gap_s + fixed) for shift in (0.0, -down, up)]
    ordered = sorted(rows, key=lambda row: -row.seconds)
    return StepExplanation(
        batch=batch,
        rows=tuple(_with_share(row, device_s) for row in ordered),
        tokens=batch.tokens,
        padded_tokens=int(padded),
        seconds=ends[0],
        lower_s=ends[1],
        upper_s=ends[2],
        host_s=host_s,
        launch_bound_s=launch_s,
        gap_s=host.gap_s,
        compute_s=float(floors[0]),
        memory_s=float(floors[1]),
        link_s=float(floors[2]),
        host_source=host.source,
    )


def _with_share(row: OperatorRow, device_s: float) -> OperatorRow:
    return replace(row, share=row.seconds / device_s if device_s > 0 else 0.0)
