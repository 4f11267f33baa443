"""Plan expert offload of a real model on a real device: what is fastest, or the least memory for a speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil, inf

from simtool.errors import InfeasibleError, InputError
from simtool.models.architecture import ModelArchitecture
from simtool.models.config import load_architecture
from simtool.models.memory import kv_bytes_per_sequence, state_bytes_per_sequence, weight_bytes_per_device
from simtool.models.offload_memory import check_offload, expert_bytes
from simtool.models.routing.shape import moe_shape
from simtool.offloading import OffloadQuestion, check_tokens, engine_pool, one_device, walk_needs, walk_prices
from simtool.plan import ExpertOffload, Pool
from simtool.planners.offload.bound import Bounds
from simtool.planners.offload.case import AHEAD, PLANNED, OffloadCase, OffloadProblem
from simtool.planners.offload.choices import Choices
from simtool.planners.offload.fastest import FastestOffload, fastest_offload
from simtool.planners.offload.hits import expected_uses
from simtool.planners.offload.least import LeastMemory, least_memory
from simtool.simulator.host import HostOverhead
from simtool.simulator.kv_capacity import activation_bytes, graph_bytes, outside_bytes
from simtool.simulator.offload.compiling import dense_share
from simtool.simulator.offload.needs import Needs
from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.room import host_of
from simtool.simulator.offload.routes import RouteBank, route_bank
from simtool.simulator.offload.served import OffloadSpec
from simtool.simulator.step_costs import StageHardware
from simtool.units import GB

_MOST_CASES, _MOST_WAYS = 64, 64
USUAL_WAYS = (
    *(ExpertOffload(policy=name) for name in ("on-demand", "static-cpu", "static-cheaper", "lru", "lfu")),
    *(ExpertOffload(policy="speculative", window=window) for window in (1, 2)),
    *(ExpertOffload(policy="predicted-path", window=window) for window in (1, 4)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadPlanQuestion:
    """What may be chosen. walked: the model, the device, routing, context and steps (its dtype and batch are not used).

    ways: policy, window and recall; their slots and staging are chosen. hbm_bytes: of the device (0: all it has);
    host_bytes: host memory for the experts (0: the usual server's). max_step_s: longest mean decode step (0: any).
    """

    walked: OffloadQuestion
    weight_dtypes: tuple[str, ...] = ("auto",)
    batches: tuple[int, ...] = (1,)
    ways: tuple[ExpertOffload, ...] = USUAL_WAYS
    hbm_bytes: float = 0.0
    host_bytes: float = 0.0
    max_step_s: float = 0.0


def plan_memory(
    question: OffloadPlanQuestion, tokens_per_s: float, say: Callable[[str], None] | None = None
) -> LeastMemory:
    """The least device memory that reaches the speed. Raises InputError, and InfeasibleError with what binds."""
    return least_memory(offload_problem(question), tokens_per_s, say=say)


def plan_curve(
    question: OffloadPlanQuestion, shares: tuple[float, ...] = (1.0,), say: Callable[[str], None] | None = None
) -> list[FastestOffload]:
    """The fastest with each share of the memory (the last with all), bounded; shares that hold nothing are left out.

    Raises InputError, and InfeasibleError with what binds where all the memory does not do.
    """
    problem, bounds, choices = offload_problem(question), Bounds(), Choices()
    found = []
    for share in shares[:-1]:
        try:
            part = replace(problem, hbm_bytes=share * problem.hbm_bytes)
            found.append(fastest_offload(part, bounds, choices, say))
        except InfeasibleError:
            continue
    return [*found, fastest_offload(problem, bounds, choices, say)]


def offload_problem(question: OffloadPlanQuestion) -> OffloadProblem:
    """All cases whose experts host memory holds, priced. Raises InputError, and InfeasibleError("host-memory")."""
    _check(question)
    walked = question.walked
    hardware, host = one_device(walked)
    archs = {dtype: load_architecture(walked.model, dtype) for dtype in question.weight_dtypes}
    kept = _held_by_host(archs, question, hardware)
    shape = moe_shape(next(iter(archs.values())))
    bank = route_bank(walked.routing, shape, ExpertOffload(policy="on-demand"), walked.seed)
    told = {
        (way.policy, way.window): route_bank(walked.routing, shape, way, walked.seed)
        for way in question.ways
        if way.policy in AHEAD
    }
    cases = []
    for batch in dict.fromkeys(question.batches):
        asked = replace(walked, batch=batch)
        needs, _ = walk_needs(bank, asked)
        guesses = {
            (str(key[0]), key[1]): guess
            for key, one in told.items()
            if (guess := walk_needs(one, asked)[1]) is not None
        }
        for dtype, arch in kept.items():
            typed = replace(asked, weight_dtype=dtype)
            cases.append(_case(question, typed, arch, hardware, host, _Routed(bank=bank, needs=needs, guesses=guesses)))
    return OffloadProblem(
        cases=tuple(cases),
        ways=question.ways,
        hbm_bytes=min(question.hbm_bytes or inf, hardware.device.usable_bytes),
        max_step_s=question.max_step_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Routed:
    """Of one batch."""

    bank: RouteBank
    needs: Needs
    guesses: Mapping[tuple[str, int], Needs]


def _check(question: OffloadPlanQuestion) -> None:
    cases = len(set(question.batches)) * len(set(question.weight_dtypes))
    keys = {(way.policy, way.window) for way in question.ways}
    if not 1 <= cases <= _MOST_CASES or not 1 <= len(question.ways) <= _MOST_WAYS:
        rule = f"must be from 1 to {_MOST_CASES} weight dtypes x batches, and from 1 to {_MOST_WAYS} policies"
        raise InputError(f"{cases} x {len(question.ways)}", rule)
    if len(keys) < len(question.ways):
        raise InputError(f"{len(question.ways)} policies", "name one twice with the same window")
    for way in question.ways:
        if way.policy not in PLANNED:
            raise InputError(way.policy, "is not planned", ", ".join(sorted(PLANNED)))
        if way.slots or way.staging:
            raise InputError(way.policy, "has slots or staging, which the plan is to choose", "POLICY[,window=N]")
    if min(question.hbm_bytes, question.host_bytes, question.max_step_s) < 0:
        raise InputError("hbm_bytes, host_bytes, max_step_s", "must be at least 0")
    for batch in question.batches:
        check_tokens(replace(question.walked, batch=batch))


def _held_by_host(
    archs: Mapping[str, ModelArchitecture], question: OffloadPlanQuestion, hardware: StageHardware
) -> dict[str, ModelArchitecture]:
    """Those whose experts fit into host memory."""
    server = host_of(hardware.device)
    room = question.host_bytes or (hardware.device.usable_bytes if server is None else server.dram_bytes)
    wanted = {}
    for dtype, arch in archs.items():
        shape, pool = moe_shape(arch), Pool(device=hardware.device.name)
        wanted[dtype] = len(shape.layers) * shape.num_experts * expert_bytes(arch, pool.parallel)
    if min(wanted.values()) > room:
        detail = f"the experts of {question.walked.model} take {min(wanted.values()) / GB:.0f} GB of host memory"
        raise InfeasibleError(
            "host-memory", f"{detail}, and there are {room / GB:.0f} GB", "a smaller weight dtype, or more host memory"
        )
    return {dtype: arch for dtype, arch in archs.items() if wanted[dtype] <= room}


def _case(
    question: OffloadPlanQuestion,
    asked: OffloadQuestion,
    arch: ModelArchitecture,
    hardware: StageHardware,
    host: HostOverhead,
    routed: _Routed,
) -> OffloadCase:
    shape = moe_shape(arch)
    prices: dict[str, Prices] = {}
    for policy in dict.fromkeys(way.policy for way in question.ways):
        pool = engine_pool(asked, hardware, ExpertOffload(policy=policy, slots=1))
        check_offload(arch, pool)
        spec = OffloadSpec(
            offload=pool.offload,
            shape=shape,
            bank=routed.bank,
            expert_bytes=expert_bytes(arch, pool.parallel),
            dense_share=dense_share(arch, shape),
        )
        prices[policy] = walk_prices(asked, arch, pool, hardware, host, spec)
    return OffloadCase(
        weight_dtype=asked.weight_dtype,
        batch=asked.batch,
        layers=len(shape.layers),
        experts=shape.num_experts,
        top_k=shape.top_k,
        expert_bytes=spec.expert_bytes,
        fixed_bytes=_fixed_bytes(arch, pool, hardware, asked),
        needs=routed.needs,
        uses=expected_uses(routed.bank.uses, shape.top_k, asked.batch),
        prices=prices,
        guesses=routed.guesses,
    )


def _fixed_bytes(arch: ModelArchitecture, pool: Pool, hardware: StageHardware, asked: OffloadQuestion) -> float:
    """Of HBM beside experts: other weights, the KV cache at the walk's end, activations, graphs, the process."""
    shape, parallel, block = moe_shape(arch), pool.parallel, pool.kv.block_size
    experts = len(shape.layers) * shape.num_experts * expert_bytes(arch, parallel)
    tokens = ceil((asked.context + asked.steps) / block) * block
    cached = kv_bytes_per_sequence(arch, tokens, parallel, 0, pool.kv.dtype) + state_bytes_per_sequence(arch)
    beside = activation_bytes(arch, pool, 0) + outside_bytes(hardware.device, parallel) + graph_bytes(arch, pool, 0)
    return weight_bytes_per_device(arch, parallel, 0) - experts + asked.batch * cached + beside
