"""Columns: replica templates for a cluster of unlike devices, enumerated outside the solver.

A template is one engine: on one device type, or a pipeline whose stages sit on several. For a pipeline the layers of
each stage follow from two splits: equal stage time (per-layer step time of each type), and equal share of the memory
that is left for KV; both within what each type can hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from simtool.errors import InfeasibleError, InputError
from simtool.plan import KvPolicy, Parallel, Plan, Pool
from simtool.planners.backend import Backend, DeviceGroup
from simtool.planners.question import Question
from simtool.planners.space import Refusals, enumerate_plans
from simtool.simulator.engine import EngineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One engine of a plan to be: its pool (one replica), compiled, and the devices of each group that it takes."""

    pool: Pool
    weight_dtype: str
    spec: EngineSpec
    takes: tuple[int, ...]
    usd_per_hour: float


def enumerate_columns(
    question: Question, backend: Backend, *, most_mixed: int = 64
) -> tuple[list[Column], Refusals, int]:
    """Templates on one type each, then at most `most_mixed` mixed pipelines (those with the most layers per second).

    Returns the columns, what was refused, and how many mixed pipelines were left out.
    """
    single = replace(question, space=replace(question.space, replicas=(1,), devices=()))
    proposals, refusals = enumerate_plans(single, backend)
    columns = [
        _column(backend, proposal.plan.pools[0], proposal.plan.weight_dtype, proposal.spec) for proposal in proposals
    ]
    drafts = sorted(_mixed_pipelines(question, backend), key=lambda draft: -draft.promise)
    for draft in drafts[:most_mixed]:
        plan = _plan_of(question, draft.pool)
        try:
            spec = backend.compile(plan, draft.pool)
        except InfeasibleError as error:
            refusals.add(error.constraint, error.detail)
            continue
        longest = int((question.workload.input_tokens + question.workload.output_tokens).max())
        if longest > min(spec.num_blocks * spec.block_size, spec.max_model_len):
            refusals.add("kv-capacity", f"the longest request has {longest} tokens")
            continue
        columns.append(_column(backend, draft.pool, plan.weight_dtype, spec))
    return columns, refusals, max(0, len(drafts) - most_mixed)


def _column(backend: Backend, pool: Pool, dtype: str, spec: EngineSpec) -> Column:
    stages = pool.stage_devices or (pool.device,) * pool.parallel.pp
    each = pool.parallel.tp * pool.parallel.dp
    takes = tuple(each * sum(device == group.device for device in stages) for group in backend.groups)
    usd = sum(n * group.usd_per_hour for n, group in zip(takes, backend.groups, strict=True) if n)
    return Column(pool=pool, weight_dtype=dtype, spec=spec, takes=takes, usd_per_hour=usd)


def _plan_of(question: Question, pool: Pool) -> Plan:
    return Plan(
        model=question.model,
        cluster=question.devices,
        pools=(pool,),
        weight_dtype=question.space.weight_dtype[0],
        kernel_library=question.kernel_library,
        profiles=question.profiles,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A mixed pipeline before it is compiled. promise: layers a second of its slowest stage, a device."""

    pool: Pool
    promise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _TypeLaw:
    """One device type under a TP degree: seconds a layer of a typical step, and how many layers a stage can hold."""

    group: DeviceGroup
    layer_s: float
    most_layers: int


def _mixed_pipelines(question: Question, backend: Backend) -> Iterator[_Draft]:
    """Pipelines that use at least two device types with one TP degree."""
    layers = len(backend.architecture.layers)
    for tp in question.space.tp or _powers(min(group.largest_node for group in backend.groups)):
        laws = [_type_law(question, backend, group, tp) for group in backend.groups]
        known = [law for law in laws if law is not None]
        choices = [range(min(law.group.slots(tp), layers) + 1) for law in known]
        for counts in product(*choices):
            stages = sum(counts)
            if sum(n > 0 for n in counts) < 2 or (question.space.pp and stages not in question.space.pp):
                continue
            for split in _splits(known, counts, layers):
                yield _draft(question, known, counts, split, tp)


def _powers(most: int) -> tuple[int, ...]:
    return tuple(2**i for i in range(most.bit_length()) if 2**i <= most)


def _type_law(question: Question, backend: Backend, group: DeviceGroup, tp: int) -> _TypeLaw | None:
    """Probe a device type: the deepest pipeline that fits tells a layer's time; memory tells how many layers fit."""
    layers = len(backend.architecture.layers)
    fits: tuple[int, EngineSpec] | None = None
    low, high = 1, layers
    while low <= high:  # fewest stages of this type alone (any number of devices) that hold the model
        middle = (low + high) // 2
        spec = _probe(question, backend, group, tp, middle)
        if spec is None:
            low = middle + 1
        else:
            fits, high = (middle, spec), middle - 1
    if fits is None:
        return None
    stages, spec = fits
    tokens = min(64, spec.tables.token_s.shape[1] - 1)
    most = -(-layers // stages)
    stage_s = float(np.max(spec.tables.token_s[:, tokens] + spec.tables.shared_s[:, tokens]))
    return _TypeLaw(group=group, layer_s=stage_s / most, most_layers=most)


def _probe(question: Question, backend: Backend, group: DeviceGroup, tp: int, stages: int) -> EngineSpec | None:
    pool = _pool(question, (group.device,) * stages, (), tp)
    try:
        return backend.compile(_plan_of(question, pool), pool)
    except (InfeasibleError, InputError):
        return None


def _splits(laws: list[_TypeLaw], counts: tuple[int, ...], layers: int) -> list[tuple[int, ...]]:
    """Layers a stage, one number a type before rounding: by time and by memory; each rounded to cover all layers."""
    by_time = [n / law.layer_s for n, law in zip(counts, laws, strict=True)]
    by_memory = [float(n * law.most_layers) for n, law in zip(counts, laws, strict=True)]
    limits = [law.most_layers for law, n in zip(laws, counts, strict=True) for _ in range(n)]
    if sum(limits) < layers or sum(counts) > layers:
        return []
    found = []
    for weights in (by_time, by_memory):
        share = [layers * w / sum(weights) / max(n, 1) for w, n in zip(weights, counts, strict=True)]
        wanted = [x for x, n in zip(share, counts, strict=True) for _ in range(n)]
        found.append(_rounded(wanted, limits, layers))
    return list(dict.fromkeys(split for split in found if split))


def _rounded(wanted: list[float], limits: list[int], layers: int) -> tuple[int, ...]:
    """Whole numbers near `wanted`, between 1 and the limits, that add up to `layers`."""
    held = [min(max(1, int(x)), most) for x, most in zip(wanted, limits, strict=True)]
    while sum(held) != layers:
        step = 1 if sum(held) < layers else -1
        able = [i for i, n in enumerate(held) if 1 <= n + step <= limits[i]]
        if not able:
            return ()
        best = max(able, key=lambda i: step * (wanted[i] - held[i]))
        held[best] += step
    return tuple(held)


def _draft(
    question: Question, laws: list[_TypeLaw], counts: tuple[int, ...], split: tuple[int, ...], tp: int
) -> _Draft:
    names = tuple(law.group.device for law, n in zip(laws, counts, strict=True) for _ in range(n))
    times = [law.layer_s for law, n in zip(laws, counts, strict=True) for _ in range(n)]
    slowest = max(k * s for k, s in zip(split, times, strict=True))
    usd = sum(n * law.group.usd_per_hour * tp for law, n in zip(laws, counts, strict=True))
    dollars = question.objective in ("cost-per-token", "throughput-per-dollar")
    price = usd if dollars else float(len(names) * tp)
    return _Draft(pool=_pool(question, names, split, tp), promise=1.0 / (slowest * price))


def _pool(question: Question, devices: tuple[str, ...], split: tuple[int, ...], tp: int) -> Pool:
    space = question.space
    return Pool(
        device=devices[0],
        parallel=Parallel(tp=tp, pp=len(devices), layers_per_stage=split),
        scheduler=replace(
            question.scheduler,
            scheduling=space.scheduling[0],
            max_num_seqs=max(space.max_num_seqs),
            max_num_batched_tokens=max(space.max_num_batched_tokens),
        ),
        kv=KvPolicy(
            block_size=question.block_size,
            gpu_memory_utilization=question.gpu_memory_utilization,
            prefix_caching=question.prefix_caching,
            num_gpu_blocks=question.num_gpu_blocks,
            dtype=space.kv_dtype[0],
        ),
        stage_devices=devices,
        overlap=space.overlap[0],
    )
