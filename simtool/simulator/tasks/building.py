"""The loop's arrays, made from a TaskGraph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from simtool.simulator.tasks.arrays import (
    ALONE_AT,
    CAP,
    END,
    ENTRY,
    ENTRY_END,
    F8,
    FIRST_WAITING,
    GIVE,
    GIVE_END,
    I8,
    KIND,
    LAST_BLOCKED,
    LAST_WAITING,
    LATENCY,
    LEFT,
    MARK,
    MISSING,
    PRIORITY,
    RATE,
    START,
    SUCC,
    SUCC_END,
    TAKE,
    TAKE_END,
    TILED,
    TILES,
    WEIGHT,
    Arrays,
)
from simtool.simulator.tasks.columns import Amounts, Columns, make_columns
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.task import RateChange


def make_arrays(graph: TaskGraph, changes: Sequence[RateChange], segments: int) -> Arrays:
    """Arrays of a graph, which is checked; `segments` is how many changes of speed can be recorded."""
    columns = make_columns(graph)
    n, r = len(graph.tasks), len(columns.rates)
    task_i, task_f = _task_tables(columns, n)
    entry_i, entry_f = _entries(columns, task_i, r)
    store_i, store_f = _stores(columns, task_i)
    room_i, room_f = np.full((r, 4), -1, np.int64), np.zeros((r, 5))
    room_f[:, RATE] = columns.rates
    room_i[:, MARK] = 0
    rooms = {name: place for place, name in enumerate(graph.rooms)}
    ordered = sorted(changes, key=lambda change: change.at_s)
    counters = np.zeros(11, np.int64)
    counters[[FIRST_WAITING, LAST_WAITING, LAST_BLOCKED]] = -1
    counters[TILED] = rooms.get(graph.tiled, -1)
    return Arrays(
        task_i=task_i,
        task_f=task_f,
        entry_i=entry_i,
        entry_f=entry_f,
        room_i=room_i,
        room_f=room_f,
        successors=_successors(columns, task_i),
        store_i=store_i,
        store_f=store_f,
        heap=np.zeros(n, np.int64),
        part=np.zeros(n + r, np.int64),
        settled=np.zeros(n, np.int64),
        capped=np.zeros(n, np.int64),
        open=np.zeros(r, np.int64),
        dirty=np.zeros(r, np.int64),
        change_i=np.array([rooms[change.resource] for change in ordered], np.int64),
        change_f=np.array([(change.at_s, change.rate) for change in ordered], np.float64).reshape(-1, 2),
        interference=_interference(graph.interference, columns.kinds),
        segments=np.zeros((segments, 3)),
        counters=counters,
    )


def _task_tables(columns: Columns, n: int) -> tuple[I8, F8]:
    task_i, task_f = np.zeros((n, 17), np.int64), np.zeros((n, 13))
    task_i[:, PRIORITY], task_i[:, TILES], task_i[:, KIND] = columns.priority, columns.tiles, columns.kind
    task_f[:, LATENCY], task_f[:, WEIGHT], task_f[:, LEFT] = columns.latency_s, columns.weight, 1.0
    with np.errstate(over="ignore"):  # of a subnormal time: no cap either
        task_f[:, CAP] = np.divide(1.0, columns.shortest_s, out=np.full(n, np.inf), where=columns.shortest_s > 0)
    task_f[:, [START, END, ALONE_AT]] = np.nan
    return task_i, task_f


def _entries(columns: Columns, task_i: I8, rooms: int) -> tuple[I8, F8]:
    """One entry for each task and resource that it works on or holds."""
    both = (columns.work, columns.holds)
    used = [np.flatnonzero(amounts.units > 0) for amounts in both]
    codes = [amounts.owner[place] * rooms + amounts.room[place] for amounts, place in zip(both, used, strict=True)]
    each, inverse = np.unique(np.concatenate(codes), return_inverse=True)
    entry_f = np.zeros((len(each), 2))
    split = len(used[0])
    entry_f[inverse[:split], 0] = columns.work.units[used[0]]
    entry_f[inverse[split:], 1] = columns.holds.units[used[1]]
    entry_i = np.full((len(each), 4), -1, np.int64)
    entry_i[:, 0], entry_i[:, 1] = np.divmod(each, max(rooms, 1))
    _slices(task_i, ENTRY, ENTRY_END, entry_i[:, 0])
    return entry_i, entry_f


def _stores(columns: Columns, task_i: I8) -> tuple[I8, F8]:
    """Takes, then gives."""
    takes, gives = columns.takes, columns.gives
    _slices(task_i, TAKE, TAKE_END, takes.owner)
    _slices(task_i, GIVE, GIVE_END, gives.owner)
    task_i[:, [GIVE, GIVE_END]] += len(takes.owner)
    return _joined(takes, gives)


def _joined(one: Amounts, other: Amounts) -> tuple[I8, F8]:
    return np.concatenate([one.room, other.room]), np.concatenate([one.units, other.units])


def _successors(columns: Columns, task_i: I8) -> I8:
    """Edges are sorted by the task before."""
    task_i[:, MISSING] = np.bincount(columns.edges[:, 1], minlength=len(task_i))
    _slices(task_i, SUCC, SUCC_END, columns.edges[:, 0])
    return np.ascontiguousarray(columns.edges[:, 1])


def _slices(task_i: I8, first: int, last: int, owner: I8) -> None:
    """Where, in a list sorted by owner, each task's part begins and ends."""
    ends = np.cumsum(np.bincount(owner, minlength=len(task_i)))
    task_i[:, last] = ends
    task_i[1:, first] = ends[:-1]


def _interference(factors: Mapping[tuple[str, str], float], kinds: dict[str, int]) -> F8:
    """[1, 1] where nothing is slowed."""
    table = np.ones((len(kinds), len(kinds)))
    for (kind, other), factor in factors.items():
        if kind in kinds and other in kinds:
            table[kinds[kind], kinds[other]] = factor
    return table if (table < 1.0).any() else np.ones((1, 1))
