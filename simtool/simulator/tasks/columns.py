"""A graph's tasks as columns of numbers, checked: what bad input there is gets one InputError that names the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from simtool.errors import InputError
from simtool.simulator.tasks.arrays import F8, I8
from simtool.simulator.tasks.graph import TaskGraph, edge_array
from simtool.simulator.tasks.task import Task

MOST = 1e60  # far beyond any quantity, and its square is still a number
LEAST = 1e-60  # units below are none


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """One mapping of every task (its work, say), laid end to end: whose, in which room, how much."""

    owner: I8
    room: I8
    units: F8


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Numbers of a graph. rates: resources, then stores. kinds: interference kind → row."""

    rates: F8
    work: Amounts
    holds: Amounts
    takes: Amounts
    gives: Amounts
    latency_s: F8
    shortest_s: F8
    weight: F8
    priority: I8
    tiles: I8
    kind: I8
    kinds: dict[str, int]
    edges: I8  # [k, 2] (before, after), sorted, each once


def make_columns(graph: TaskGraph) -> Columns:
    """Columns of `graph`. Raises InputError for what is no graph (cycles are seen only when it runs)."""
    rooms = {name: place for place, name in enumerate(graph.rooms)}
    if len(rooms) < len(graph.resources) + len(graph.stores):
        raise InputError(sorted(graph.rooms), "resources and stores must have names of their own")
    tasks, resources = graph.tasks, {one.name: rooms[one.name] for one in graph.resources}
    stores = {one.name: rooms[one.name] for one in graph.stores}
    kinds = {kind: place for place, kind in enumerate(sorted({*(task.kind for task in tasks), ""}))}
    columns = Columns(
        rates=_numbers([*(one.rate for one in graph.resources), *(one.capacity for one in graph.stores)]),
        work=_amounts(tasks, [task.work for task in tasks], resources, "resource"),
        holds=_amounts(tasks, [task.holds for task in tasks], resources, "resource"),
        takes=_amounts(tasks, [task.takes for task in tasks], stores, "store"),
        gives=_amounts(tasks, [task.gives for task in tasks], stores, "store"),
        latency_s=_numbers([task.latency_s for task in tasks]),
        shortest_s=_numbers([task.shortest_s for task in tasks]),
        weight=_numbers([task.weight for task in tasks]),
        priority=_integers([task.priority for task in tasks], "priorities"),
        tiles=_integers([task.tiles for task in tasks], "tiles"),
        kind=np.array([kinds[task.kind] for task in tasks], np.int64),
        kinds=kinds,
        edges=edge_array(tasks),
    )
    _check(graph, columns)
    return columns


def _amounts(
    tasks: Sequence[Task], each: Sequence[Mapping[str, float]], known: Mapping[str, int], what: str
) -> Amounts:
    counts = np.fromiter(map(len, each), np.int64, len(each))
    try:
        rooms = [known[name] for amounts in each for name in amounts]
    except KeyError as error:
        name = str(error.args[0])
        user = next(task for task, amounts in zip(tasks, each, strict=True) if name in amounts)
        raise InputError(name, f"is no {what} of the graph", f"task {user.name} uses it") from None
    units = _numbers([units for amounts in each for units in amounts.values()])
    units[(units > 0) & (units < LEAST)] = 0.0
    owner = np.repeat(np.arange(len(each)), counts)
    return Amounts(owner=owner, room=np.array(rooms, np.int64), units=units)


def _numbers(values: ArrayLike) -> F8:
    try:
        return np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(str(error), "quantities of a task graph must be numbers") from None


def _integers(values: ArrayLike, what: str) -> I8:
    found = np.array(values)
    if found.size and not np.issubdtype(found.dtype, np.integer):
        raise InputError(str(found.dtype), f"{what} must be whole numbers")
    return found.astype(np.int64)


def _check(graph: TaskGraph, columns: Columns) -> None:
    """Ranges of all numbers, and tasks that need more than there is."""
    tasks, names = graph.tasks, graph.rooms
    _in_range(columns.rates, lambda place: f"rate or capacity of {names[place]}")
    for column in ("latency_s", "shortest_s", "weight", "tiles"):
        _in_range(getattr(columns, column), lambda place, column=column: f"{column} of task {tasks[place].name}")  # type: ignore[misc]
    for amounts in (columns.work, columns.holds, columns.takes, columns.gives):
        name_of = _namer(graph, amounts)
        _in_range(amounts.units, name_of)
    for amounts in (columns.holds, columns.takes):
        most = columns.rates[amounts.room]
        for place in np.flatnonzero(amounts.units > most)[:1]:
            name = tasks[amounts.owner[place]].name
            room = names[amounts.room[place]]
            value = float(amounts.units[place])
            raise InputError(value, f"task {name} needs more than the {most[place]:g} of {room} that there are")
    for pair, factor in graph.interference.items():
        if not 0.0 < factor <= 1.0:
            raise InputError(factor, f"interference of {pair} must be in (0, 1]")
        if "" in pair:
            raise InputError(pair, "interference is between kinds that have names")


def _namer(graph: TaskGraph, amounts: Amounts) -> Callable[[int], str]:
    return lambda place: f"{graph.rooms[amounts.room[place]]} of task {graph.tasks[amounts.owner[place]].name}"


def _in_range(values: F8 | I8, what: Callable[[int], str]) -> None:
    for place in np.flatnonzero(~((values >= 0) & (values <= MOST)))[:1]:
        raise InputError(values[place].item(), f"{what(int(place))} must be a number from 0 to {MOST:g}")
