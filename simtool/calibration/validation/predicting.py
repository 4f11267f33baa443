"""Prediction: the plan's engines, and their run of the measured workload on the simulator's own clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simtool.hardware.own_cluster import own_cluster
from simtool.metrics import Result, serving_metrics
from simtool.models.architecture import ModelArchitecture
from simtool.models.reduced import plan_architecture
from simtool.plan import Plan, Pool
from simtool.run import check_devices, pool_routes
from simtool.simulator.compile import compile_engine, stage_hardware
from simtool.simulator.cpu_engine import pool_on
from simtool.simulator.engine import EngineSpec
from simtool.simulator.host import HostOverhead
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.run import simulate_engines
from simtool.simulator.step_costs import StageHardware
from simtool.workload import Workload

ENDS = ("lower", "upper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A plan with everything that prices it. engines, and pools as their devices run them: one a replica."""

    plan: Plan
    architecture: ModelArchitecture
    hardware: Mapping[str, StageHardware]
    host: HostOverhead
    engines: tuple[EngineSpec, ...]
    pools: tuple[Pool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The simulated run (a record a step), its metrics, and those with all step times at either end."""

    result: Result
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]


def price_plan(plan: Plan, workload: Workload, layers: int = 0) -> Priced:
    """The plan's engines. layers: of the model that ran, where it was cut to fewer (0: all). Raises InputError."""
    check_devices(plan)
    architecture = plan_architecture(plan, layers)
    hardware, host = priced_cluster(own_cluster(plan.cluster, plan.profiles), plan.kernel_library, plan.profiles)
    mean = int((workload.input_tokens.astype(np.int64) + workload.output_tokens).mean())
    engines: list[EngineSpec] = []
    pools: list[Pool] = []
    for pool in plan.pools:
        bank = pool_routes(architecture, pool, workload)
        spec = compile_engine(architecture, pool, hardware, host=host, sequence_tokens=mean, bank=bank)
        engines += [spec] * pool.replicas
        pools += [pool_on(pool, [stage.device for stage in stage_hardware(pool, hardware)])] * pool.replicas
    return Priced(
        plan=plan,
        architecture=architecture,
        hardware=hardware,
        host=host,
        engines=tuple(engines),
        pools=tuple(pools),
    )


def predict(priced: Priced, workload: Workload) -> Prediction:
    """The run on the simulator's clock, and the range of each metric over the ends of the step times' interval."""
    router = priced.plan.router
    result = simulate_engines(priced.engines, workload, router=router, exact_steps=True, record_steps=True)
    metrics = serving_metrics(result)
    runs = [metrics]
    for end in ENDS:
        moved = with_tables(priced.engines, end)
        runs.append(serving_metrics(simulate_engines(moved, workload, router=router, exact_steps=True)))
    intervals = {key: (min(run[key] for run in runs), max(run[key] for run in runs)) for key in metrics}
    return Prediction(result=result, metrics=metrics, intervals=intervals)


def with_tables(engines: Sequence[EngineSpec], end: str) -> list[EngineSpec]:
    """The engines with their step times at one end of the interval."""
    return _changed(engines, {id(e.tables): replace(e, tables=getattr(e, end)) for e in engines})


def without_host(engines: Sequence[EngineSpec]) -> list[EngineSpec]:
    """The engines with a host that takes no time: a step's price is its device's, and the gap."""
    free = {id(e.tables): np.zeros_like(e.tables.host_s) for e in engines}
    return _changed(
        engines, {id(e.tables): replace(e, tables=replace(e.tables, host_s=free[id(e.tables)])) for e in engines}
    )


def _changed(engines: Sequence[EngineSpec], by_tables: Mapping[int, EngineSpec]) -> list[EngineSpec]:
    """Replicas of one pool keep sharing one table."""
    return [by_tables[id(engine.tables)] for engine in engines]
