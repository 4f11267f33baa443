"""Decode steps of a model with offloaded experts, under several policies: hits, waiting and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.hardware.own_cluster import own_cluster
from simtool.models.architecture import ModelArchitecture
from simtool.models.config import load_architecture
from simtool.models.memory import weight_bytes_per_device
from simtool.models.offload_memory import check_offload, expert_bytes, hbm_slots, offloaded_bytes
from simtool.models.routing.shape import MoeShape, moe_shape
from simtool.offload_use import OffloadUse
from simtool.plan import ExpertOffload, Pool, Scheduler
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.explain import explain_step
from simtool.simulator.host import HostOverhead
from simtool.simulator.offload.belady import fewest_loads
from simtool.simulator.offload.compiling import dense_share
from simtool.simulator.offload.costs import price_experts
from simtool.simulator.offload.needs import Needs, expert_needs, ranked_needs
from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.room import check_host_memory
from simtool.simulator.offload.routes import RouteBank, route_bank, told_of
from simtool.simulator.offload.served import OffloadSpec, policy_of, resident_of, store_of
from simtool.simulator.offload.use import walk_use
from simtool.simulator.offload.walk import walk
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.step_costs import StageHardware

_MOST_TOKENS = 2_000_000  # of a walk: the largest columns have a row for each need
_BESIDE_LAYERS = ("lm_head", "sampling", "embedding")  # operators of a step that stand in no layer


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadQuestion:
    """`batch` requests decode `steps` steps on one device, each with `context` tokens cached.

    routing: a source as `parse_source` reads it, or a recorded trace's file; empty: uniform.
    """

    model: str
    device: str
    routing: str = ""
    batch: int = 1
    context: int = 1024
    steps: int = 200
    weight_dtype: str = "auto"
    kernel_library: str = "vllm"
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWalk:
    """What one offload did. hbm_bytes: of experts in HBM; weights_bytes: of all weights there; fits: with a tenth of
    the device's memory to spare. most_hits: no policy has a higher share of needs that cost no load, in these slots.
    """

    offload: ExpertOffload
    hbm_bytes: float
    weights_bytes: float
    fits: bool
    tokens_per_s: float
    loads_per_token: float
    most_hits: float
    use: OffloadUse


def walk_policies(question: OffloadQuestion, offloads: Sequence[ExpertOffload]) -> tuple[PolicyWalk, ...]:
    """Each offload walked through the same routing, from an empty cache. Raises InputError, and InfeasibleError where
    host memory does not hold the experts."""
    check_tokens(question)
    arch = load_architecture(question.model, question.weight_dtype)
    hardware, host = one_device(question)
    banks: dict[ExpertOffload, RouteBank] = {}
    walks = []
    for offload in offloads:
        key = told_of(offload)
        if key not in banks:
            banks[key] = route_bank(question.routing, moe_shape(arch), offload, question.seed)
        walks.append(_walked(question, arch, engine_pool(question, hardware, offload), hardware, host, banks[key]))
    return tuple(walks)


def check_tokens(question: OffloadQuestion) -> None:
    """Raise InputError for more tokens than a walk can have, or none."""
    if min(question.batch, question.context, question.steps) < 1 or question.batch * question.steps > _MOST_TOKENS:
        rule = f"a walk has from 1 to {_MOST_TOKENS:,} tokens"
        raise InputError(f"{question.batch} requests x {question.steps} steps", rule, "fewer --steps")


def one_device(question: OffloadQuestion) -> tuple[StageHardware, HostOverhead]:
    """The device and its host, priced. Raises InputError for more than one."""
    cluster = own_cluster(f"1x{question.device}", ())
    if cluster.devices != 1:
        raise InputError(question.device, "is not one device", "one engine on one device is walked: h200")
    found, host = priced_cluster(cluster, question.kernel_library)
    (hardware,) = found.values()
    return hardware, host


def default_slots(shape: MoeShape) -> int:
    """Slots of a layer where none are given: a quarter of the experts, and no fewer than a token needs."""
    return max(shape.top_k, shape.num_experts // 4)


def engine_pool(question: OffloadQuestion, hardware: StageHardware, offload: ExpertOffload) -> Pool:
    """The engine that decodes."""
    budget = max(2048, question.batch)
    scheduler = Scheduler(max_num_seqs=question.batch, max_num_batched_tokens=budget)
    return Pool(device=hardware.device.name, scheduler=scheduler, offload=offload)


def _walked(
    question: OffloadQuestion,
    arch: ModelArchitecture,
    pool: Pool,
    hardware: StageHardware,
    host: HostOverhead,
    bank: RouteBank,
) -> PolicyWalk:
    check_offload(arch, pool)
    check_host_memory(arch, pool, hardware.device)
    shape, size = moe_shape(arch), expert_bytes(arch, pool.parallel)
    spec = OffloadSpec(
        offload=pool.offload, shape=shape, bank=bank, expert_bytes=size, dense_share=dense_share(arch, shape)
    )
    store = store_of(spec)
    needs, guess = walk_needs(bank, question)
    prices = walk_prices(question, arch, pool, hardware, host, spec)
    done = walk(store, policy_of(pool.offload), needs, prices, guess=guess, resident=resident_of(spec))
    tokens = question.batch * question.steps
    weights = weight_bytes_per_device(arch, pool.parallel, 0) - offloaded_bytes(arch, pool)
    return PolicyWalk(
        offload=pool.offload,
        hbm_bytes=hbm_slots(pool.offload, shape) * size,
        weights_bytes=weights,
        fits=weights <= pool.kv.gpu_memory_utilization * hardware.device.usable_bytes,
        tokens_per_s=tokens / done.makespan_s,
        loads_per_token=done.total("loads") / tokens,
        most_hits=1.0 - fewest_loads(store, needs) / len(needs.objects),
        use=walk_use(done),
    )


def walk_needs(bank: RouteBank, question: OffloadQuestion) -> tuple[Needs, Needs | None]:
    """Of all steps, and what is predicted."""
    step = np.repeat(np.arange(question.steps), question.batch)
    rows = _rows(bank, question)
    needs = expert_needs(bank.experts[rows], step, bank.num_experts)
    guess = ranked_needs(bank.guess[rows], step, bank.num_experts) if bank.guess.shape[2] else None
    return needs, guess


def _rows(bank: RouteBank, question: OffloadQuestion) -> NDArray[np.int64]:
    """The bank's row of each token, step by step. A sequence that ends begins again; who share one are apart."""
    requests, lengths = np.arange(question.batch), np.diff(bank.starts)
    sequence = requests % len(lengths)
    first = requests // len(lengths) * question.steps
    place = (first + np.arange(question.steps)[:, None]) % lengths[sequence]
    if bank.recorded and (question.batch > len(lengths) or (lengths[sequence] < question.steps).any()):
        rule = f"has {len(lengths)} requests, the shortest of those that are walked of {lengths[sequence].min()} tokens"
        raise InputError(question.routing, rule, "a smaller --batch, fewer --steps")
    rows = np.asarray(bank.row[bank.starts[sequence] + place].ravel(), np.int64)
    if (rows < 0).any():
        raise InputError(question.routing, "lacks a token between others", "record the whole run")
    return rows


def walk_prices(
    question: OffloadQuestion,
    arch: ModelArchitecture,
    pool: Pool,
    hardware: StageHardware,
    host: HostOverhead,
    spec: OffloadSpec,
) -> Prices:
    """The decode step as `simtool explain` prices it, its experts one by one."""
    batch = parse_batch(f"decode:{question.batch}x{question.context}")
    priced = explain_step(arch, replace(pool, offload=ExpertOffload()), {pool.device: hardware}, batch, host=host)
    beside = sum(row.seconds for row in priced.rows if row.name in _BESIDE_LAYERS)
    dense = sum(row.seconds for row in priced.rows if row.family != "moe") - beside
    (experts, _, _), _ = price_experts(arch, pool, hardware, host)
    objects = len(spec.shape.layers) * spec.shape.num_experts
    return Prices(
        dense_s=(dense * spec.dense_share)[None, :],
        expert_s=experts.expert_s[None, :],
        load_s=np.full(objects, experts.load_s),
        cpu_s=None if experts.cpu_s is None else experts.cpu_s[None, :],
        cpu_sync_s=experts.sync_s,
        step_s=beside + priced.launch_bound_s + priced.gap_s,
    )
