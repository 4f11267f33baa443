"""Backend: what a search asks of the other rooms, as plain callables, so that a test can hand in an analytic one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from simtool.metrics import Result, Slo
from simtool.models.architecture import ModelArchitecture
from simtool.plan import Plan, Pool
from simtool.simulator.engine import EngineSpec
from simtool.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceGroup:
    """All devices of one type: (number of nodes, devices in each) pairs, and what a device costs an hour."""

    device: str
    nodes: tuple[tuple[int, int], ...]
    usd_per_hour: float

    @property
    def count(self) -> int:
        """Devices of the type."""
        return sum(number * size for number, size in self.nodes)

    @property
    def largest_node(self) -> int:
        """Devices of the largest node."""
        return max(size for _, size in self.nodes)

    def slots(self, devices: int) -> int:
        """Groups of so many devices that fit without crossing a node."""
        return sum(number * (size // devices) for number, size in self.nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The model, the devices, and the three things a search does with a plan.

    compile: a pool of a plan → its engine; raises InfeasibleError when the model or its KV cache does not fit, and
    InputError when the engine cannot run the pool at all.
    with_interval: the same engine with both ends of its interval, where `compile` leaves them out (None: it does not).
    simulate: engines (one a replica), workload, router → Result.
    metrics: vLLM's keys of a Result. attainment: share of requests that meet every limit of the Slo.
    """

    architecture: ModelArchitecture
    groups: tuple[DeviceGroup, ...]
    compile: Callable[[Plan, Pool], EngineSpec]
    simulate: Callable[[Sequence[EngineSpec], Workload, str], Result]
    metrics: Callable[[Result, Slo], Mapping[str, float]]
    attainment: Callable[[Result, Slo], float]
    with_interval: Callable[[Plan, Pool], EngineSpec] | None = None

    def usd_per_hour(self, plan: Plan) -> float:
        """Price of all devices of a plan."""
        price = {group.device: group.usd_per_hour for group in self.groups}
        total = 0.0
        for pool in plan.pools:
            stages = pool.stage_devices or (pool.device,) * pool.parallel.pp
            per_stage = pool.parallel.tp * pool.parallel.dp
            total += pool.replicas * per_stage * sum(price[device] for device in stages)
        return total
