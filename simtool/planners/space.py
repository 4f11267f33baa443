"""Space: every plan that a question allows, and which rule refuses each of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

from simtool.errors import InfeasibleError, InputError
from simtool.offloads import offload_text
from simtool.overlaps import overlap_name
from simtool.plan import KvPolicy, Parallel, Plan, Pool, Router
from simtool.planners.backend import Backend, DeviceGroup
from simtool.planners.fitting_offloads import fitting_offloads
from simtool.planners.legal import Setting, broken_rule, model_limits
from simtool.planners.question import Question
from simtool.simulator.engine import EngineSpec

ROUTERS: tuple[Router, ...] = ("round_robin", "least_outstanding", "prefix_aware")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A legal plan of one pool and its compiled engine (shared by all replica counts)."""

    plan: Plan
    spec: EngineSpec

    @property
    def replicas(self) -> int:
        """Engines of the plan."""
        return self.plan.pools[0].replicas


@dataclass(slots=True, kw_only=True)
class Refusals:
    """Plans refused, by rule: how many, and the first message."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    relaxation: str = ""

    def add(self, rule: str, message: str, plans: int = 1) -> None:
        """Count `plans` plans that `rule` refuses."""
        self.counts[rule] = self.counts.get(rule, 0) + plans
        self.examples.setdefault(rule, message)


def enumerate_plans(question: Question, backend: Backend) -> tuple[list[Proposal], Refusals]:
    """All legal plans of one pool, compiled, and the refused ones by rule. Raises InputError for a malformed space."""
    _check_space(question)
    refusals = Refusals()
    proposals: list[Proposal] = []
    limits = model_limits(backend.architecture)
    for group in backend.groups:
        for dtype in question.space.weight_dtype:
            setting = Setting(
                limits=limits,
                group=group,
                library=question.kernel_library,
                quantised_on_load=dtype != "auto",
                whole_nodes=not (question.space.tp or question.space.pp or question.space.dp),
            )
            for pool in _pools(question, group, bool(limits.experts)):
                short = refusals.counts.get("memory", 0)
                proposals += _replicated(question, backend, setting, pool, dtype, refusals)
                if question.space.offload_auto and refusals.counts.get("memory", 0) > short:
                    for offload in fitting_offloads(backend, _plan(question, pool, dtype, question.space.router[0])):
                        lighter = replace(pool, offload=offload)
                        proposals += _replicated(question, backend, setting, lighter, dtype, refusals)
    return proposals, refusals


def _check_space(question: Question) -> None:
    space = question.space
    for name in ("devices", "replicas", "tp", "pp", "dp", "ep", "max_num_seqs", "max_num_batched_tokens"):
        for value in getattr(space, name):
            if value < 1:
                raise InputError(value, f"{name} must be at least 1")
    for name in (
        "all2all_backend",
        "weight_dtype",
        "kv_dtype",
        "max_num_seqs",
        "max_num_batched_tokens",
        "scheduling",
        "overlap",
        "offload",
        "router",
    ):
        if not getattr(space, name):
            raise InputError(name, "the space has no value for it", "give at least one")
    for router in space.router:
        if router not in ROUTERS:
            raise InputError(router, "unknown router", f"one of {', '.join(ROUTERS)}")


def _pools(question: Question, group: DeviceGroup, moe: bool) -> Iterator[Pool]:
    """One-replica pools: parallel degrees that the devices could hold, and scheduler knobs."""
    space, most = question.space, group.count
    for parallel in _parallels(question, most, group.largest_node, moe):
        knobs = product(
            space.kv_dtype,
            space.max_num_seqs,
            space.max_num_batched_tokens,
            space.scheduling,
            space.overlap,
            space.offload,
        )
        for kv_dtype, seqs, tokens, scheduling, overlap, offload in knobs:
            yield Pool(
                device=group.device,
                parallel=parallel,
                scheduler=replace(
                    question.scheduler, scheduling=scheduling, max_num_seqs=seqs, max_num_batched_tokens=tokens
                ),
                kv=KvPolicy(
                    block_size=question.block_size,
                    gpu_memory_utilization=question.gpu_memory_utilization,
                    prefix_caching=question.prefix_caching,
                    num_gpu_blocks=question.num_gpu_blocks,
                    dtype=kv_dtype,
                ),
                overlap=overlap,
                offload=offload,
            )


def _parallels(question: Question, most: int, node: int, moe: bool) -> Iterator[Parallel]:
    """Degrees asked for, or all that fit on `most` devices.

    DP attention and EP are tried on experts only.
    """
    space = question.space
    for tp in space.tp or range(1, node + 1):
        for pp in space.pp or range(1, most // tp + 1):
            for dp in space.dp or (range(1, most // (tp * pp) + 1) if moe else (1,)):
                ranks = tp * dp
                divisors = [ep for ep in range(1, ranks + 1) if ranks % ep == 0]
                for ep in space.ep or (divisors if moe else (1,)):
                    plain = Parallel(tp=tp, pp=pp, dp=dp, ep=ep)
                    for backend in space.all2all_backend if dp > 1 and ep > 1 else (plain.all2all_backend,):
                        yield replace(plain, all2all_backend=backend)


def _replicated(
    question: Question, backend: Backend, setting: Setting, pool: Pool, dtype: str, refusals: Refusals
) -> list[Proposal]:
    """The pool in every number of replicas, compiled once."""
    broken = broken_rule(pool, setting)
    if broken:
        refusals.add(*broken)
        return []
    plan = _plan(question, pool, dtype, question.space.router[0])
    spec: EngineSpec | None = None
    proposals = []
    for replicas, router in _replicas(question, setting, pool):
        many = _replace_replicas(pool, replicas)
        broken = broken_rule(many, setting)
        if broken:
            refusals.add(*broken)
            continue
        if spec is None:
            spec = _compiled(question, backend, plan, refusals)
            if spec is None:
                return []
        proposals.append(Proposal(plan=_plan(question, many, dtype, router), spec=spec))
    return proposals


def _replicas(question: Question, setting: Setting, pool: Pool) -> Iterator[tuple[int, Router]]:
    """Replica counts and routers; with one replica all routers are the same."""
    space = question.space
    for replicas in space.replicas or range(1, setting.group.count // pool.devices + 1):
        if space.devices and replicas * pool.devices not in space.devices:
            continue
        for router in space.router[:1] if replicas == 1 else space.router:
            yield replicas, _router(router)


def _router(name: str) -> Router:
    return next(router for router in ROUTERS if router == name)


def _compiled(question: Question, backend: Backend, plan: Plan, refusals: Refusals) -> EngineSpec | None:
    """The engine of a one-replica plan, or None with the reason counted."""
    try:
        spec = backend.compile(plan, plan.pools[0])
    except InfeasibleError as error:
        refusals.add(error.constraint, f"{plan_label(plan)}: {error.detail}")
        refusals.relaxation = refusals.relaxation or error.relaxation
        return None
    except InputError as error:
        refusals.add("engine", f"{plan_label(plan)}: {error}")
        return None
    longest = int((question.workload.input_tokens + question.workload.output_tokens).max())
    room = spec.num_blocks * spec.block_size
    if longest > room:
        message = f"{plan_label(plan)}: the longest request has {longest} tokens, the KV cache of a rank holds {room}"
        refusals.add("kv-capacity", message)
        return None
    if longest > spec.max_model_len:
        rule = f"the longest request has {longest} tokens, the engine takes {spec.max_model_len}"
        refusals.add("context", f"{plan_label(plan)}: {rule}")
        return None
    return spec


def _plan(question: Question, pool: Pool, dtype: str, router: str) -> Plan:
    return Plan(
        model=question.model,
        cluster=question.devices,
        pools=(pool,),
        weight_dtype=dtype,
        kernel_library=question.kernel_library,
        profiles=question.profiles,
        router=_router(router),
    )


def _replace_replicas(pool: Pool, replicas: int) -> Pool:
    return replace(pool, replicas=replicas)


def plan_label(plan: Plan) -> str:
    """A plan in one short line: "2 x h200 tp4 pp1 · 8192 tokens"; degrees of 1 are left out but tp."""
    return " + ".join(_pool_label(pool) for pool in plan.pools)


def _pool_label(pool: Pool) -> str:
    p = pool.parallel
    degrees = f"tp{p.tp}" + "".join(f" {name}{n}" for name, n in (("pp", p.pp), ("dp", p.dp), ("ep", p.ep)) if n > 1)
    degrees += f" {p.all2all_backend}" if p.sends_tokens else ""
    device = "/".join(dict.fromkeys(pool.stage_devices)) or pool.device
    more = "" if pool.overlap.off else f" · {overlap_name(pool.overlap)}"
    more += "" if pool.offload.off else f" · {offload_text(pool.offload)}"
    return f"{pool.replicas} x {device} {degrees} · {pool.scheduler.max_num_batched_tokens} tokens{more}"
