"""The arrays that the compiled loop reads and writes, made from a TaskGraph. Constants name the columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.simulator.tasks.graph import TaskGraph, stream_edges
from simtool.simulator.tasks.task import RateChange

I8 = NDArray[np.int64]
F8 = NDArray[np.float64]

# task_i columns. An entry is one (task, resource) pair; work, holds, takes and gives are slices of lists.
PHASE, MISSING, PRIORITY, TILES, KIND, PLACE, ENTRY, ENTRY_END, SUCC, SUCC_END, TAKE, TAKE_END, GIVE, GIVE_END, SEEN = (
    range(15)
)
FROZEN, NEXT_WAITING = 15, 16
# task_f columns. LEFT: share of the work to do, as of SINCE. KEY: when the next thing happens to the task.
LATENCY, CAP, WEIGHT, LEFT, SINCE, SPEED, KEY, START, END, ALONE, SHARE, ALONE_AT = range(12)
# entry_i columns: links of the resource's running entries. entry_f columns: units of work, units held
OWNER, RESOURCE, BEFORE, AFTER = range(4)
WORK, HOLD = range(2)
# room_f columns: resources, then stores. room_i columns
RATE, TAKEN, FREE, DEMAND = range(4)
HEAD, MARK, RISING, STALE = range(4)
# counters
NOW_SEEN, HEAP_N, DONE, SEGMENTS, FIRST_WAITING, LAST_WAITING, CHANGE, TILED, RUNNING_N = range(9)
# phases
PENDING, WAITING, LAUNCHING, RUNNING, ENDED = range(5)


class Arrays(NamedTuple):
    """n tasks, e entries, r resources and stores."""

    task_i: I8  # [n, 17]
    task_f: F8  # [n, 12]
    entry_i: I8  # [e, 4]
    entry_f: F8  # [e, 2]
    room_i: I8  # [r, 4]
    room_f: F8  # [r, 4]
    successors: I8  # [edges]
    store_i: I8  # [takes and gives] which store
    store_f: F8  # [takes and gives] units
    heap: I8  # [n] tasks that launch or run, the earliest KEY first
    part: I8  # [n + r] scratch: tasks, then resources, of the part of the graph whose speeds change
    settled: I8  # [n] scratch: tasks that have got their speed
    change_i: I8  # [k] resource of a rate change
    change_f: F8  # [k, 2] when, new rate
    interference: F8  # [kinds, kinds]
    segments: F8  # [capacity, 3] task, since, speed; capacity 0 records nothing
    counters: I8  # [9]


def make_arrays(graph: TaskGraph, changes: Sequence[RateChange], segments: int) -> Arrays:
    """Arrays of a checked graph; `segments` is how many changes of speed can be recorded."""
    rooms = {name: place for place, name in enumerate(graph.rooms)}
    n, r = len(graph.tasks), len(rooms)
    task_i, task_f = np.zeros((n, 17), np.int64), np.zeros((n, 12))
    entry_i, entry_f = _entries(graph, rooms, task_i)
    successors = _successors(graph, task_i)
    store_i, store_f = _stores(graph, rooms, task_i)
    kinds = {kind: place for place, kind in enumerate(sorted({task.kind for task in graph.tasks} | {""}))}
    for index, task in enumerate(graph.tasks):
        task_i[index, [PRIORITY, TILES, KIND]] = task.priority, task.tiles, kinds[task.kind]
        cap = 1.0 / task.shortest_s if task.shortest_s > 0 else np.inf
        task_f[index, [LATENCY, CAP, WEIGHT, LEFT]] = task.latency_s, cap, task.weight, 1.0
    task_f[:, [START, END, ALONE_AT]] = np.nan
    room_i, room_f = np.full((r, 4), -1, np.int64), np.zeros((r, 4))
    room_f[:, RATE] = [*(one.rate for one in graph.resources), *(one.capacity for one in graph.stores)]
    ordered = sorted(changes, key=lambda change: change.at_s)
    counters = np.zeros(9, np.int64)
    counters[[FIRST_WAITING, LAST_WAITING]] = -1
    counters[TILED] = rooms.get(graph.tiled, -1)
    return Arrays(
        task_i=task_i,
        task_f=task_f,
        entry_i=entry_i,
        entry_f=entry_f,
        room_i=room_i,
        room_f=room_f,
        successors=successors,
        store_i=store_i,
        store_f=store_f,
        heap=np.zeros(n, np.int64),
        part=np.zeros(n + r, np.int64),
        settled=np.zeros(n, np.int64),
        change_i=np.array([rooms[change.resource] for change in ordered], np.int64),
        change_f=np.array([(change.at_s, change.rate) for change in ordered]).reshape(-1, 2),
        interference=_interference(graph, kinds),
        segments=np.zeros((segments, 3)),
        counters=counters,
    )


def _entries(graph: TaskGraph, rooms: dict[str, int], task_i: I8) -> tuple[I8, F8]:
    owners: list[tuple[int, int, int, int]] = []
    units: list[tuple[float, float]] = []
    for index, task in enumerate(graph.tasks):
        task_i[index, ENTRY] = len(owners)
        for name in dict.fromkeys((*task.work, *task.holds)):
            work, hold = task.work.get(name, 0.0), task.holds.get(name, 0.0)
            if work > 0 or hold > 0:
                owners.append((index, rooms[name], -1, -1))
                units.append((work, hold))
        task_i[index, ENTRY_END] = len(owners)
    return np.array(owners, np.int64).reshape(-1, 4), np.array(units, np.float64).reshape(-1, 2)


def _stores(graph: TaskGraph, rooms: dict[str, int], task_i: I8) -> tuple[I8, F8]:
    which: list[int] = []
    units: list[float] = []
    for index, task in enumerate(graph.tasks):
        for amounts, first in ((task.takes, TAKE), (task.gives, GIVE)):
            task_i[index, first] = len(which)
            which += [rooms[name] for name in amounts]
            units += list(amounts.values())
            task_i[index, first + 1] = len(which)
    return np.array(which, np.int64), np.array(units, np.float64)


def _successors(graph: TaskGraph, task_i: I8) -> I8:
    """Edges grouped by the task before. InputError where tasks wait for each other."""
    pairs = {(before, index) for index, task in enumerate(graph.tasks) for before in task.after}
    pairs.update(stream_edges(graph.tasks))
    edges = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    n = len(graph.tasks)
    task_i[:, MISSING] = np.bincount(edges[:, 1], minlength=n)
    ends = np.cumsum(np.bincount(edges[:, 0], minlength=n))
    task_i[:, SUCC_END] = ends
    task_i[1:, SUCC] = ends[:-1]
    _check_order(graph, edges, task_i)
    return np.ascontiguousarray(edges[:, 1])


def _check_order(graph: TaskGraph, edges: I8, task_i: I8) -> None:
    missing = task_i[:, MISSING].copy()
    ready = list(np.flatnonzero(missing == 0))
    done = 0
    while ready:
        task = ready.pop()
        done += 1
        for after in edges[task_i[task, SUCC] : task_i[task, SUCC_END], 1]:
            missing[after] -= 1
            if missing[after] == 0:
                ready.append(after)
    if done < len(graph.tasks):
        held = graph.tasks[int(np.flatnonzero(missing > 0)[0])].name
        raise InputError(held, "waits for itself through other tasks", "streams order tasks as the graph lists them")


def _interference(graph: TaskGraph, kinds: dict[str, int]) -> F8:
    table = np.ones((len(kinds), len(kinds)))
    for (kind, other), factor in graph.interference.items():
        if kind in kinds and other in kinds:
            table[kinds[kind], kinds[other]] = factor
    return table
