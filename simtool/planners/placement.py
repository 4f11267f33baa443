"""Placement: contiguous layer ranges on machines of several types, so that the most tokens flow through all layers.

A token passes machines whose ranges join up; a machine that holds k layers passes at most rate(k) tokens/s, whatever
share of its layers a token uses. By max-flow = min-cut on intervals, the flow of a placement is the least, over layers,
of the summed rates of the machines that hold the layer. So: equal machines become counts, a *column* is (layers of a
stage, machines of each type), columns that reach a target flow with no machine to spare are enumerated outside the
solver, CP-SAT picks columns that cover all layers, and the target is bisected. The bound covers staggered ranges.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from simtool.errors import InfeasibleError, InputError
from simtool.planners.certificate import Certificate, fixed_solver

_CLOSE = 1e-7  # relative distance at which two flows count as equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`count` equal machines; rate[k]: tokens/s that one passes when it holds k layers (need not fall with k)."""

    name: str
    count: int
    rate: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`layers` consecutive layers, held by machines[i] machines of type i, side by side."""

    layers: int
    machines: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Stages in layer order and the proof."""

    stages: tuple[Stage, ...]
    flow: float
    baseline_flow: float
    certificate: Certificate


def place_layers(machines: Sequence[Machine], layers: int) -> Placement:
    """The placement with the largest flow. InfeasibleError: the layers fit nowhere; InputError: bad rates."""
    started = time.monotonic()
    _check(machines, layers)
    bound = flow_bound(machines, layers)
    first = even_placement(machines, layers)
    best, flow = first, stage_flow(first, machines) if first else 0.0
    high, proven = bound, True
    while high - flow > _CLOSE * high:
        target = high if high == bound else 0.5 * (flow + high)
        target = min(target, bound) * (1.0 - _CLOSE / 4)
        found, status = _reach(machines, layers, target)
        if found:
            best, flow = found, stage_flow(found, machines)
        elif status == "INFEASIBLE":
            high = target
        else:
            proven = False
            break
    if not best:
        capacity = sum(machine.count * max(machine.rate) for machine in machines)
        raise InfeasibleError("memory", f"{layers} layers, the machines hold {capacity}", "add machines")
    certificate = Certificate(
        status="OPTIMAL" if proven and bound - flow <= 2 * _CLOSE * bound else "FEASIBLE",
        objective=flow,
        bound=max(bound, flow),
        gap=max(0.0, bound - flow) / flow if bound - flow > 2 * _CLOSE * bound else 0.0,
        seconds=time.monotonic() - started,
        scope="flow of all placements of contiguous layer ranges, staggered ones included",
    )
    return Placement(
        stages=tuple(best),
        flow=flow,
        baseline_flow=stage_flow(first, machines) if first else 0.0,
        certificate=certificate,
    )


def _check(machines: Sequence[Machine], layers: int) -> None:
    if layers < 1 or not machines:
        raise InputError(layers, "a placement needs layers and machines")
    for machine in machines:
        if machine.count < 1 or not machine.rate or min(machine.rate) < 1 or min(machine.rate.values()) <= 0:
            raise InputError(machine.name, "a machine type needs a count, and positive rates for 1 or more layers")


def flow_bound(machines: Sequence[Machine], layers: int) -> float:
    """Largest flow that machine-layers allow: at flow F a machine serves at most k · min(rate(k), F)/F whole layers."""
    low, high = 0.0, sum(machine.count * max(machine.rate.values()) for machine in machines)

    def covered(flow: float) -> float:
        return sum(m.count * max(k * min(rate, flow) for k, rate in m.rate.items()) for m in machines) / flow

    if covered(high) >= layers:
        return high
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if covered(middle) >= layers * (1 - 1e-13) else (low, middle)
    return high


def stage_flow(stages: Sequence[Stage], machines: Sequence[Machine]) -> float:
    """Tokens/s through stages one after the other."""
    rates = (
        sum(n * m.rate[stage.layers] for n, m in zip(stage.machines, machines, strict=True) if n) for stage in stages
    )
    return min(rates)


def even_placement(machines: Sequence[Machine], layers: int) -> list[Stage]:
    """The baseline: a chain of single machines, each with the same share of its largest load; [] if it does not fit."""
    most = sum(machine.count * max(machine.rate) for machine in machines)
    if most < layers:
        return []
    wanted = [machine for machine in machines for _ in range(machine.count)]
    held = [max(k for k in m.rate if k <= max(1, max(m.rate) * layers // most)) for m in wanted]
    for index, machine in enumerate(wanted):
        missing = layers - sum(held)
        held[index] = max((k for k in machine.rate if k <= held[index] + max(missing, 0)), default=held[index])
    while sum(held) > layers:
        index = max(range(len(held)), key=lambda i: held[i])
        held[index] -= 1
    if sum(held) != layers or any(k and k not in m.rate for k, m in zip(held, wanted, strict=True)):
        return []
    unit = [tuple(int(machine is other) for other in machines) for machine in wanted]
    return [Stage(layers=k, machines=n) for k, n in zip(held, unit, strict=True) if k]


def columns_for(machines: Sequence[Machine], flow: float) -> list[Stage]:
    """All stages that reach `flow` and would not with a machine less."""
    return list(_columns(machines, flow))


def _columns(machines: Sequence[Machine], flow: float) -> Iterator[Stage]:
    for k in sorted({k for machine in machines for k in machine.rate}):
        able = [(machine.rate.get(k, 0.0), machine.count) for machine in machines]
        ranges = [range(min(count, _ceil(flow, rate)) + 1) if rate else range(1) for rate, count in able]
        for counts in product(*ranges):
            total = sum(n * rate for n, (rate, _) in zip(counts, able, strict=True))
            spare = total - min((rate for n, (rate, _) in zip(counts, able, strict=True) if n), default=0.0)
            if total >= flow > spare:
                yield Stage(layers=k, machines=counts)


def _ceil(flow: float, rate: float) -> int:
    return int(-(-flow // rate))


def _reach(machines: Sequence[Machine], layers: int, flow: float) -> tuple[list[Stage], str]:
    """Stages that all reach `flow` and hold all layers, or [] with the solver's status."""
    from ortools.sat.python import cp_model

    columns = columns_for(machines, flow)
    model = cp_model.CpModel()
    used = [model.new_int_var(0, layers // column.layers, f"c{i}") for i, column in enumerate(columns)]
    model.add(sum(column.layers * x for column, x in zip(columns, used, strict=True)) == layers)
    for index, machine in enumerate(machines):
        model.add(sum(c.machines[index] * x for c, x in zip(columns, used, strict=True)) <= machine.count)
    solver = fixed_solver()
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return [], str(solver.status_name(status))
    return [column for column, x in zip(columns, used, strict=True) for _ in range(solver.value(x))], "OPTIMAL"
