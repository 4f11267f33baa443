"""Checker: verifies plans and placements on its own, slowly and plainly. It shares no code with rules or search.

Every function raises CheckError with the name of the broken rule; silence means that all rules hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simtool.errors import SimtoolError
from simtool.models.architecture import ModelArchitecture
from simtool.plan import Plan, Pool
from simtool.planners.backend import Backend


class CheckError(SimtoolError):
    """A solution breaks `rule`: a defect of the solver that made it, never of the question."""

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        super().__init__(f"{rule}: {detail}")


def check_plan(plan: Plan, backend: Backend) -> None:
    """All pools together fit the cluster, every stage has its layers, and every TP group sits inside one node."""
    for pool in plan.pools:
        _check_stages(pool, backend.architecture)
    check_shared([plan], backend)


def check_shared(plans: Sequence[Plan], backend: Backend) -> None:
    """The pools of several plans fit the cluster side by side; layers are not judged, for models differ."""
    known = {group.device: group for group in backend.groups}
    pools = [pool for plan in plans for pool in plan.pools]
    devices = [name for pool in pools for name in _device_names(pool)]  # one entry a device, on purpose
    for name in devices:
        if name not in known:
            raise CheckError("known-device", f"{name} is not in the cluster")
        if sum(other == name for other in devices) > known[name].count:
            raise CheckError("devices", f"more {name} than the {known[name].count} of the cluster")
    _check_nodes(pools, backend)


def _device_names(pool: Pool) -> list[str]:
    names: list[str] = []
    for _ in range(pool.replicas):
        for stage in range(pool.parallel.pp):
            name = pool.stage_devices[stage] if pool.stage_devices else pool.device
            names.extend([name] * (pool.parallel.tp * pool.parallel.dp))
    return names


def _check_stages(pool: Pool, arch: ModelArchitecture) -> None:
    p = pool.parallel
    if min(pool.replicas, p.tp, p.pp, p.dp, p.ep) < 1:
        raise CheckError("degrees", f"a degree of {p} is below 1")
    if pool.stage_devices and len(pool.stage_devices) != p.pp:
        raise CheckError("stages", f"{len(pool.stage_devices)} stage devices for pp={p.pp}")
    if p.layers_per_stage:
        if len(p.layers_per_stage) != p.pp or min(p.layers_per_stage) < 1:
            raise CheckError("stages", f"layers {p.layers_per_stage} for pp={p.pp}")
        if sum(p.layers_per_stage) != len(arch.layers):
            raise CheckError("layers", f"stages hold {sum(p.layers_per_stage)} of {len(arch.layers)} layers")
    elif p.pp > len(arch.layers):
        raise CheckError("layers", f"pp={p.pp} exceeds {len(arch.layers)} layers")
    if (p.tp * p.dp) % p.ep:
        raise CheckError("experts", f"ep={p.ep} does not divide {p.tp * p.dp} ranks")


def _check_nodes(pools: Sequence[Pool], backend: Backend) -> None:
    """Place TP groups node by node, largest first (first fit), so that none crosses a node."""
    for group in backend.groups:
        free = [size for number, size in group.nodes for _ in range(number)]
        wanted: list[int] = []
        for pool in pools:
            for stage in range(pool.parallel.pp):
                name = pool.stage_devices[stage] if pool.stage_devices else pool.device
                if name == group.device:
                    wanted.extend([pool.parallel.tp] * (pool.replicas * pool.parallel.dp))
        for size in sorted(wanted, reverse=True):
            place = next((node for node, room in enumerate(free) if room >= size), None)
            if place is None:
                raise CheckError("node-boundary", f"a TP group of {size} x {group.device} fits in no node")
            free[place] -= size


def check_placement(
    ranges: Sequence[tuple[int, int, int]],
    counts: Sequence[int],
    rates: Sequence[Mapping[int, float]],
    layers: int,
    flow: float,
) -> None:
    """ranges: (machine type, first layer, layers held), a row a machine. Verifies counts, cover and the flow claimed.

    The flow of a placement is the least, over layers, of the rates of the machines that hold the layer.
    """
    for kind, first, held in ranges:
        if held not in rates[kind]:
            raise CheckError("capacity", f"a machine of type {kind} cannot hold {held} layers")
        if first < 0 or first + held > layers:
            raise CheckError("range", f"layers {first} … {first + held - 1} of {layers}")
    for kind, most in enumerate(counts):
        used = sum(other == kind for other, _, _ in ranges)
        if used > most:
            raise CheckError("machines", f"{used} machines of type {kind}, there are {most}")
    for layer in range(layers):
        passed = sum(rates[kind][held] for kind, first, held in ranges if first <= layer < first + held)
        if passed < flow * (1 - 1e-9):
            raise CheckError("flow", f"layer {layer} passes {passed:.6g} tokens/s, {flow:.6g} are claimed")
