"""The real backend: catalogue models, fitted cost models, compiled engines and the discrete-event simulator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from simtool.errors import InputError
from simtool.hardware.cluster import Cluster
from simtool.hardware.device import Device
from simtool.hardware.own_cluster import own_cluster
from simtool.hardware.price import price_per_hour
from simtool.metrics import Result, serving_metrics, slo_attainment
from simtool.models.architecture import ModelArchitecture
from simtool.models.config import load_architecture
from simtool.models.routing.shape import moe_shape
from simtool.plan import ExpertOffload, Plan, Pool
from simtool.planners.backend import Backend, DeviceGroup
from simtool.planners.question import Objective, Question
from simtool.planners.remembered import RememberedCosts
from simtool.simulator.compile import compile_engine, price_pool, stage_hardware, step_tables
from simtool.simulator.engine import EngineSpec
from simtool.simulator.grids import capture_sizes
from simtool.simulator.host import HostOverhead
from simtool.simulator.kv_capacity import context_limit, kv_capacity
from simtool.simulator.offload.costs import graphs_hold
from simtool.simulator.offload.routes import RouteBank, route_bank, told_of
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.run import simulate_engines
from simtool.simulator.step_costs import StageHardware, StepCosts
from simtool.simulator.tables import StepTables
from simtool.workload import Workload

_PRICED: frozenset[Objective | None] = frozenset({"throughput-per-dollar", "cost-per-token"})


@dataclass(slots=True, kw_only=True)
class EngineShop:
    """Compiles pools of one question, and keeps what pools share: architectures by dtype and step costs."""

    model: str
    hardware: Mapping[str, StageHardware]
    host: HostOverhead
    sequence_tokens: int
    max_tokens: int
    max_seqs: int
    architectures: dict[str, ModelArchitecture] = field(default_factory=dict)
    costs: dict[tuple[object, ...], StepCosts] = field(default_factory=dict)
    widest: dict[tuple[object, ...], StepTables] = field(default_factory=dict)
    engines: dict[tuple[object, ...], EngineSpec] = field(default_factory=dict)
    routing: str = ""
    banks: dict[ExpertOffload, RouteBank] = field(default_factory=dict)

    def architecture(self, dtype: str) -> ModelArchitecture:
        """The model with weights of `dtype`."""
        if dtype not in self.architectures:
            self.architectures[dtype] = load_architecture(self.model, dtype)
        return self.architectures[dtype]

    def compile(self, plan: Plan, pool: Pool) -> EngineSpec:
        """One replica's engine, its interval left out (see `with_interval`). Memory is judged before pricing."""
        pool = replace(pool, replicas=1)
        key = (plan.weight_dtype, pool)
        if key not in self.engines:
            self.engines[key] = self._compile(plan, pool, interval=False)
        return self.engines[key]

    def with_interval(self, plan: Plan, pool: Pool) -> EngineSpec:
        """One replica's engine with both ends of its interval: three times the work, so only for what is reported."""
        return self._compile(plan, replace(pool, replicas=1), interval=True)

    def _compile(self, plan: Plan, pool: Pool, *, interval: bool) -> EngineSpec:
        arch = self.architecture(plan.weight_dtype)
        return compile_engine(
            arch,
            pool,
            self.hardware,
            host=self.host,
            costs=self._costs(plan, pool),
            sequence_tokens=self.sequence_tokens,
            interval=interval,
            wider=None if interval else self._widest(plan, pool),
            bank=self._bank(arch, pool),
        )

    def _bank(self, arch: ModelArchitecture, pool: Pool) -> RouteBank | None:
        """Where tokens go; offloads to which the same is told share it."""
        if pool.offload.off:
            return None
        key = told_of(pool.offload)
        if key not in self.banks:
            self.banks[key] = route_bank(self.routing, moe_shape(arch), key)
        return self.banks[key]

    def _costs(self, plan: Plan, pool: Pool) -> StepCosts:
        key = (plan.weight_dtype, pool.parallel, pool.kv.dtype, pool.stage_devices or pool.device, pool.overlap)
        if key not in self.costs:
            arch = self.architecture(plan.weight_dtype)
            devices = [stage.device for stage in stage_hardware(pool, self.hardware)]
            blocks, memory = kv_capacity(arch, pool, devices, sequence_tokens=self.sequence_tokens)
            context_limit(arch, pool, blocks, memory)
            self.costs[key] = price_pool(arch, pool, self.hardware, max_tokens=self.max_tokens, max_seqs=self.max_seqs)
        return self.costs[key]

    def _widest(self, plan: Plan, pool: Pool) -> StepTables | None:
        """Tables of the pool with the largest token budget of the space, where they hold for the pool's own too."""
        wide = replace(pool.scheduler, max_num_batched_tokens=self.max_tokens)
        if capture_sizes(wide) != capture_sizes(pool.scheduler):
            return None
        device, graphs = pool.stage_devices or pool.device, graphs_hold(pool)
        key = (plan.weight_dtype, pool.parallel, wide, pool.kv.dtype, device, pool.overlap, graphs)
        if key not in self.widest:
            self.widest[key] = step_tables(
                self._costs(plan, pool), replace(pool, scheduler=wide), self.hardware, host=self.host
            )
        return self.widest[key]


def open_backend(question: Question, *, beside: Objective | None = None) -> Backend:
    """The backend of a question. Raises InputError for an unknown model, device, dtype or library, and for an objective
    (the question's, and the one `beside` it) that needs a price or a power which nobody knows.
    """
    cluster = own_cluster(question.devices, question.profiles)
    stages, host = priced_cluster(cluster, question.kernel_library, question.profiles)
    hardware = {name: replace(s, cost_model=RememberedCosts(model=s.cost_model)) for name, s in stages.items()}
    lengths = question.workload.input_tokens + question.workload.output_tokens
    shop = EngineShop(
        model=question.model,
        hardware=hardware,
        host=host,
        sequence_tokens=int(lengths.mean()),
        max_tokens=max(question.space.max_num_batched_tokens),
        max_seqs=max(question.space.max_num_seqs),
        routing=question.workload.expert_routing,
    )
    return Backend(
        architecture=shop.architecture(question.space.weight_dtype[0]),
        groups=_groups(cluster, question, {question.objective, beside}),
        compile=shop.compile,
        with_interval=shop.with_interval,
        simulate=_simulate,
        metrics=serving_metrics,
        attainment=slo_attainment,
    )


def _simulate(engines: Sequence[EngineSpec], workload: Workload, router: str) -> Result:
    return simulate_engines(engines, workload, router=router)


def _groups(cluster: Cluster, question: Question, objectives: Set[Objective | None]) -> tuple[DeviceGroup, ...]:
    """Devices by type; a price is needed only where the objective counts dollars."""
    return tuple(
        DeviceGroup(
            device=name,
            nodes=tuple((g.nodes, g.devices_per_node) for g in cluster.groups if g.device.name == name),
            usd_per_hour=_price(cluster.group_of(name).device, question, objectives),
        )
        for name in cluster.devices_by_type
    )


def _price(device: Device, question: Question, objectives: Set[Objective | None]) -> float:
    if "energy-per-token" in objectives and math.isnan(device.tdp_w):
        rule = "does not draw a known power: its profile measured kernels, not watts"
        raise InputError(device.name, rule, "another objective, or devices of the catalogue")
    try:
        return price_per_hour(device, question.price_per_hour)
    except InputError:
        if objectives & _PRICED:
            raise
        return float("nan")
