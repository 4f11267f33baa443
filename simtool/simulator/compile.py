"""Compile: one pool of a plan → the EngineSpec that the replica's kernel runs on.

The interval: inside a table, errors of operator families combine in quadrature; deviations of different tables add up
in the kernel, which is wider than independence would give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simtool.errors import InputError
from simtool.hardware.cost import WEAKEST_LAST, Provenance
from simtool.models.architecture import ModelArchitecture
from simtool.models.routing.shape import moe_shape
from simtool.plan import Overlap, Pool, Scheduler
from simtool.simulator.cpu_engine import pool_on
from simtool.simulator.engine import EngineSpec, MemoryBudget
from simtool.simulator.grids import PREFILL_STEP, capture_sizes, padded_tokens
from simtool.simulator.host import HostOverhead
from simtool.simulator.kv_capacity import context_limit, kv_capacity
from simtool.simulator.offload.compiling import offloaded_engine
from simtool.simulator.offload.costs import graphs_hold
from simtool.simulator.offload.routes import RouteBank, route_bank
from simtool.simulator.overlap.gain_tables import StageLoad, gain_table, leap_table
from simtool.simulator.overlap.gains import stage_gains
from simtool.simulator.step_costs import (
    LOWER,
    NOMINAL,
    UPPER,
    Array,
    StageHardware,
    StepCosts,
    price_steps,
    stage_shards,
)
from simtool.simulator.tables import StepTables


def compile_engine(
    arch: ModelArchitecture,
    pool: Pool,
    hardware: Mapping[str, StageHardware],
    *,
    host: HostOverhead,
    costs: StepCosts | None = None,
    sequence_tokens: int = 0,
    interval: bool = True,
    wider: StepTables | None = None,
    bank: RouteBank | None = None,
) -> EngineSpec:
    """The engine of one replica of `pool`; arch carries the weight dtype already.

    hardware: device name as the pool writes it → device, cost model, node size. costs: made earlier by `price_pool` for
    this pool or one that differs only in scheduler knobs, KV policy or replicas. sequence_tokens: see `kv_capacity`.
    interval: False leaves the ends of the interval at the nominal tables, a third of the work. wider: nominal tables of
    a pool that differs only in a larger token budget with the same CUDA graphs; they are cut instead of made. bank:
    where tokens go, of a pool with offloaded experts (None: uniform).
    Raises InfeasibleError("memory") when the model does not fit, InputError when the engine cannot run the pool at all.
    """
    stages = stage_hardware(pool, hardware)
    pool = _as_run(pool, stages)
    _check_scheduler(pool.scheduler)
    num_blocks, memory = kv_capacity(arch, pool, [stage.device for stage in stages], sequence_tokens=sequence_tokens)
    longest = context_limit(arch, pool, num_blocks, memory)
    if costs is None:
        costs = price_pool(arch, pool, hardware)
    _check_costs(costs, arch, pool, stages)
    nominal = wider.narrowed(pool.scheduler.max_num_batched_tokens, pool.parallel.dp) if wider else None
    nominal = nominal or _tables(costs, pool, stages, host, NOMINAL)
    ends = [_tables(costs, pool, stages, host, end) for end in (LOWER, UPPER)] if interval else [nominal, nominal]
    spec = _resident_engine(pool, (nominal, *ends), costs, host, (num_blocks, memory, longest))
    if pool.offload.off:
        return spec
    bank = bank or route_bank("", moe_shape(arch), pool.offload)
    return offloaded_engine(spec, arch, pool, stages[0], host, bank)


def _resident_engine(
    pool: Pool, tables: Sequence[StepTables], costs: StepCosts, host: HostOverhead, kv: tuple[int, MemoryBudget, int]
) -> EngineSpec:
    """With all experts in HBM. tables: nominal, lower, upper; kv: blocks, the memory they are of, longest context."""
    num_blocks, memory, longest = kv
    return EngineSpec(
        tables=tables[0],
        lower=tables[1],
        upper=tables[2],
        scheduler=pool.scheduler,
        block_size=pool.kv.block_size,
        num_blocks=num_blocks,
        watermark_blocks=int(pool.kv.watermark * num_blocks),
        prefix_caching=pool.kv.prefix_caching,
        dp=pool.parallel.dp,
        pp=pool.parallel.pp,
        devices=pool.parallel.devices,
        max_model_len=longest,
        memory=memory,
        provenance=_provenance(costs),
        request_latency_s=host.request_latency_s,
    )


def price_pool(
    arch: ModelArchitecture,
    pool: Pool,
    hardware: Mapping[str, StageHardware],
    *,
    max_tokens: int = 0,
    max_seqs: int = 0,
) -> StepCosts:
    """Step costs of a pool's parallel degrees and KV dtype, for `compile_engine(costs=...)`.

    max_tokens, max_seqs: the largest max_num_batched_tokens and max_num_seqs they shall serve (0: the pool's own).
    """
    stages = stage_hardware(pool, hardware)
    pool = _as_run(pool, stages)
    scheduler = pool.scheduler
    costs = price_steps(
        arch,
        pool.parallel,
        stages,
        kv_dtype=pool.kv.dtype,
        max_tokens=max(max_tokens, scheduler.max_num_batched_tokens),
        max_seqs=max(max_seqs, scheduler.max_num_seqs),
        max_context=max(scheduler.max_model_len, arch.max_position_embeddings),
    )
    if pool.overlap.off:
        return costs
    shards = stage_shards(arch, pool.parallel, stages, kv_dtype=pool.kv.dtype)
    return replace(costs, overlap=pool.overlap, gains=stage_gains(shards, stages, pool.overlap, costs))


def step_tables(
    costs: StepCosts, pool: Pool, hardware: Mapping[str, StageHardware], *, host: HostOverhead
) -> StepTables:
    """Nominal tables of a pool, for `compile_engine(wider=...)`; memory is not judged."""
    stages = stage_hardware(pool, hardware)
    return _tables(costs, _as_run(pool, stages), stages, host, NOMINAL)


def _as_run(pool: Pool, stages: Sequence[StageHardware]) -> Pool:
    """The pool as its devices run it, without CUDA graphs where they cannot hold what is offloaded."""
    pool = pool_on(pool, [stage.device for stage in stages])
    if pool.offload.off or graphs_hold(pool):
        return pool
    return replace(pool, scheduler=replace(pool.scheduler, cuda_graphs=False))


def stage_hardware(pool: Pool, hardware: Mapping[str, StageHardware]) -> tuple[StageHardware, ...]:
    """Hardware of each pipeline stage. Raises InputError for a device that `hardware` lacks or a wrong stage count."""
    names = pool.stage_devices or (pool.device,) * pool.parallel.pp
    if len(names) != pool.parallel.pp:
        raise InputError(names, f"stage_devices must name {pool.parallel.pp} devices, one a pipeline stage")
    for name in names:
        if name not in hardware:
            raise InputError(name, "this device is not in the cluster", f"one of {', '.join(hardware)}")
    return tuple(hardware[name] for name in names)


def _check_scheduler(scheduler: Scheduler) -> None:
    if scheduler.max_num_seqs < 1 or scheduler.max_num_batched_tokens < 1:
        value = (scheduler.max_num_seqs, scheduler.max_num_batched_tokens)
        raise InputError(value, "max_num_seqs and max_num_batched_tokens must be at least 1")
    if scheduler.max_num_batched_tokens < scheduler.max_num_seqs:
        raise InputError(
            scheduler.max_num_batched_tokens,
            f"max_num_batched_tokens must be at least max_num_seqs = {scheduler.max_num_seqs}, as vLLM demands",
        )


def _check_costs(costs: StepCosts, arch: ModelArchitecture, pool: Pool, stages: tuple[StageHardware, ...]) -> None:
    kv_dtype = arch.kv_dtype if pool.kv.dtype == "auto" else pool.kv.dtype
    same = costs.parallel == pool.parallel and costs.kv_dtype == kv_dtype and costs.arch == arch
    same = same and costs.overlap == (Overlap() if pool.overlap.off else pool.overlap)
    if not same or costs.stage_devices != tuple(stage.device.name for stage in stages):
        raise InputError("costs", "were priced for another model, parallel plan, KV dtype, overlap or device")
    scheduler = pool.scheduler
    if costs.max_tokens < scheduler.max_num_batched_tokens or costs.max_seqs < scheduler.max_num_seqs:
        raise InputError("costs", f"reach {costs.max_tokens} tokens and {costs.max_seqs} requests, the pool needs more")


def _provenance(costs: StepCosts) -> dict[str, str]:
    weakest: dict[str, Provenance] = {}
    for stage in costs.stages:
        for family, kind in stage.provenance.items():
            weakest[family] = max(weakest.get(family, kind), kind, key=WEAKEST_LAST.index)
    if costs.gains:  # what runs side by side is simulated; nobody measured it there
        weakest["overlap"] = "roofline"
    return dict(sorted(weakest.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loads:
    """What the index of each table means: tokens computed (padding applied), of one rank and of all."""

    padded: Array  # [max_tokens+1]
    all_padded: Array  # [max_tokens*dp+1]
    eager: Array  # [max_tokens+1] bool as float: no CUDA graph covers the step


def _loads(pool: Pool) -> _Loads:
    scheduler, dp = pool.scheduler, pool.parallel.dp
    sizes = capture_sizes(scheduler)
    padded = padded_tokens(scheduler.max_num_batched_tokens, sizes)
    counts = np.arange(scheduler.max_num_batched_tokens * dp + 1)
    eager = (np.arange(len(padded)) > (sizes[-1] if sizes else 0)).astype(np.float64)
    # ranks step together and pad alike: all ranks' tokens are dp times the padded share of one
    return _Loads(padded=padded, all_padded=dp * padded[-(-counts // dp)], eager=eager)


def _tables(
    costs: StepCosts, pool: Pool, stages: tuple[StageHardware, ...], host: HostOverhead, end: int
) -> StepTables:
    scheduler, parallel = pool.scheduler, pool.parallel
    loads, group = _loads(pool), parallel.tp * parallel.dp
    requests = np.arange(scheduler.max_num_seqs + 1, dtype=np.float64)
    sampled = np.ceil(np.arange(scheduler.max_num_seqs * parallel.dp + 1) / parallel.dp)
    head = sum(
        (_spread(sampled, costs.grids.decodes, stage.head[end]) for stage in costs.stages), np.zeros_like(sampled)
    )
    transfer = np.max(
        [_spread(loads.padded, costs.grids.tokens, stage.transfer[end]) for stage in costs.stages], axis=0
    )
    mixed = [_spread(loads.all_padded, costs.grids.all_tokens, stage.experts[end]) for stage in costs.stages]
    decode = [_spread_rows(requests, costs.grids.decodes, stage.decode[end]) for stage in costs.stages]
    stage_loads = [_stage_load(costs, index, loads, host, end, mixed[index]) for index in range(len(stages))]
    tables = StepTables(
        token_s=np.stack([load.token_s for load in stage_loads]),
        shared_s=np.stack(mixed),
        decode_s=np.stack(decode),
        kv_knots=costs.grids.kv_knots,
        prefill_rate=np.stack([stage.prefill[end] for stage in costs.stages]),
        prefill_step=PREFILL_STEP,
        mixed_decode=max(stage.mixed_decode for stage in costs.stages),
        head_s=head,
        host_s=host.base_s + host.per_request_s * requests,
        host_overlapped=scheduler.async_scheduling,
        p2p_s=transfer,
        token_j=_token_joules(costs, loads, parallel.dp, parallel.tp),
        attention_w=group * float(np.mean([stage.attention_w for stage in costs.stages])),
        idle_w=group * sum(stage.device.idle_w for stage in stages),
    )
    return _overlapped(tables, costs, stage_loads, end) if costs.gains else tables


def _stage_load(
    costs: StepCosts, stage: int, loads: _Loads, host: HostOverhead, end: int, shared_s: Array
) -> StageLoad:
    """A stage beside attention; the gap between steps is the last one's. shared_s [max_tokens*dp+1]: of all ranks."""
    priced = costs.stages[stage]
    return StageLoad(
        padded=loads.padded,
        dense_s=_spread(loads.padded, costs.grids.tokens, priced.token[end]),
        shared_s=shared_s[:: costs.parallel.dp],
        launch_s=host.eager_launch_s * priced.launches * loads.eager,
        gap_s=np.where(loads.padded > 0, host.gap_s if stage == len(costs.stages) - 1 else 0.0, 0.0),
    )


def _overlapped(tables: StepTables, costs: StepCosts, stage_loads: Sequence[StageLoad], end: int) -> StepTables:
    """The tables with what the overlap saves."""
    pairs = zip(costs.gains, stage_loads, strict=True)
    gain = np.stack([gain_table(found, load, end, costs.overlap) for found, load in pairs])
    return replace(tables, gain=gain, leap_s=leap_table(tables.decode_s[0], gain[0], stage_loads[0].base_s))


def _token_joules(costs: StepCosts, loads: _Loads, dp: int, tp: int) -> Array:
    """[max_tokens*dp+1] dynamic joules of all devices for a step of so many tokens over all ranks."""
    own = loads.all_padded / dp
    joules = np.zeros_like(own)
    for stage in costs.stages:
        joules += tp * dp * _spread(own, costs.grids.tokens, stage.token_j)
        joules += tp * dp * _spread(loads.all_padded, costs.grids.all_tokens, stage.experts_j)
    return joules


def _spread(index: Array, grid: Array, priced: Array) -> Array:
    """Linear interpolation of `priced` at `index`; 0 where the index is 0 (no work)."""
    return np.asarray(np.where(index > 0, np.interp(index, grid, priced), 0.0))


def _spread_rows(index: Array, grid: Array, priced: Array) -> Array:
    """As `_spread`, for rows: priced [G, K] → [len(index), K]."""
    place = np.clip(np.searchsorted(grid, index, side="right") - 1, 0, max(0, len(grid) - 2))
    after = np.minimum(place + 1, len(grid) - 1)
    width = np.maximum(grid[after] - grid[place], 1.0)
    share = np.clip((index - grid[place]) / width, 0.0, 1.0)[:, None]
    rows = priced[place] * (1.0 - share) + priced[after] * share
    return np.asarray(rows * (index > 0)[:, None])
