"""Run: a plan simulated under a workload, with all that is said about it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from simtool.errors import InputError
from simtool.hardware.own_cluster import own_cluster
from simtool.metrics import Result, Slo, serving_metrics
from simtool.models.architecture import ModelArchitecture
from simtool.models.reduced import plan_architecture
from simtool.models.routing.shape import moe_shape
from simtool.plan import Plan, Pool
from simtool.simulator.compile import compile_engine
from simtool.simulator.engine import EngineSpec
from simtool.simulator.offload.routes import RouteBank, route_bank
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.run import simulate_engines
from simtool.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """metrics: vLLM's keys. prices: dollars a device-hour in place of the catalogue's. wall_s: seconds it took.

    provenance: operator family -> kind of evidence, of the first pool.
    """

    plan: Plan
    workload: Workload
    slo: Slo
    result: Result
    metrics: dict[str, float]
    wall_s: float
    provenance: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)


def simulate(plan: Plan, workload: Workload, *, exact_steps: bool = False, record_steps: bool = False) -> Result:
    """Compile every pool of `plan` and run `workload` on its replicas.

    Raises InfeasibleError where the model does not fit and InputError where an engine cannot run its pool.
    """
    engines = engines_of(plan, workload)
    return simulate_engines(engines, workload, router=plan.router, exact_steps=exact_steps, record_steps=record_steps)


def engines_of(plan: Plan, workload: Workload, *, layers: int = 0) -> list[EngineSpec]:
    """The compiled engine of each replica; windowed and recurrent layers' memory is judged at the mean request.

    layers: see `plan_architecture`.
    """
    check_devices(plan)
    architecture = plan_architecture(plan, layers)
    hardware, host = priced_cluster(own_cluster(plan.cluster, plan.profiles), plan.kernel_library, plan.profiles)
    lengths = workload.input_tokens.astype(np.int64) + workload.output_tokens
    engines: list[EngineSpec] = []
    for pool in plan.pools:
        bank = pool_routes(architecture, pool, workload)
        spec = compile_engine(architecture, pool, hardware, host=host, sequence_tokens=int(lengths.mean()), bank=bank)
        engines += [spec] * pool.replicas
    return engines


def pool_routes(architecture: ModelArchitecture, pool: Pool, workload: Workload) -> RouteBank | None:
    """Where the workload's tokens go, for a pool that offloads experts; None for another."""
    return None if pool.offload.off else route_bank(workload.expert_routing, moe_shape(architecture), pool.offload)


def check_devices(plan: Plan) -> None:
    """Raise InputError where the plan takes more devices of a type than its cluster has, or its experts fit none."""
    for pool in plan.pools:
        if pool.parallel.tp * pool.parallel.dp % pool.parallel.ep:
            rule = f"ep = {pool.parallel.ep} does not divide tp x dp = {pool.parallel.tp * pool.parallel.dp}"
            raise InputError("expert parallel", rule, "experts are spread over the devices of a replica")
    cluster = own_cluster(plan.cluster, plan.profiles)
    wanted: dict[str, int] = {}
    for pool in plan.pools:
        for device in pool.stage_devices or (pool.device,) * pool.parallel.pp:
            name = cluster.group_of(device).device.name
            wanted[name] = wanted.get(name, 0) + pool.replicas * pool.parallel.tp * pool.parallel.dp
    for name, count in wanted.items():
        if count > cluster.devices_by_type[name]:
            rule = f"the plan takes {count} x {name} and the cluster has {cluster.devices_by_type[name]}"
            raise InputError(plan.cluster, rule, "fewer replicas, lower degrees, or more --devices")


def run_plan(
    plan: Plan,
    workload: Workload,
    slo: Slo,
    *,
    exact_steps: bool = False,
    prices: Mapping[str, float] | None = None,
) -> Run:
    """Simulate `plan` under `workload` and take its metrics. Raises InputError and InfeasibleError."""
    started = time.monotonic()
    engines = engines_of(plan, workload)
    result = simulate_engines(engines, workload, router=plan.router, exact_steps=exact_steps)
    metrics = serving_metrics(result, slo)
    wall_s = time.monotonic() - started
    return Run(
        plan=plan,
        workload=workload,
        slo=slo,
        result=result,
        metrics=metrics,
        wall_s=wall_s,
        provenance=engines[0].provenance,
        prices=prices or {},
    )
