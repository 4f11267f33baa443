"""Progressive filling (Bertsekas, Gallager, "Data Networks", 6.5.2) of the resources that a part of a graph runs on.

Speeds of one priority rise together, each in proportion to its share, until a resource is used up or a task is as fast
as it can be; what is left goes to the others, then to the next priority. HEIGHT: a speed in units of the share.
"""

from __future__ import annotations

import math

from simtool.simulator.jit import jit
from simtool.simulator.tasks.arrays import (
    AFTER,
    CAP,
    DEMAND,
    ENTRY,
    ENTRY_END,
    FREE,
    FROZEN,
    HEAD,
    HEIGHT,
    NEXT,
    OWNER,
    PRIORITY,
    RATE,
    RESOURCE,
    RISING,
    SHARE,
    STALE,
    WORK,
    Arrays,
)

EPS = 1e-12  # what rounding may leave of a saturated resource, relative


@jit
def next_priority(a: Arrays, tasks: int) -> tuple[bool, int]:
    """(whether some task still rises, the first priority among them)."""
    task_i, part = a.task_i, a.part
    some, first = False, 0
    for i in range(tasks):
        task = part[i]
        if task_i[task, FROZEN] == 0 and (not some or task_i[task, PRIORITY] < first):
            some, first = True, task_i[task, PRIORITY]
    return some, first


@jit
def enter(a: Arrays, tasks: int, rooms: int, priority: int) -> tuple[int, int]:
    """How many tasks of a priority have a highest speed and how many resources they use: lists `capped` and `open`."""
    task_i, task_f, entry_i, entry_f, room_i, room_f = a.task_i, a.task_f, a.entry_i, a.entry_f, a.room_i, a.room_f
    part, n, capped, opened = a.part, task_i.shape[0], 0, 0
    for i in range(rooms):
        room = part[n + i]
        room_f[room, DEMAND] = 0.0
        room_i[room, RISING] = room_i[room, STALE] = 0
    for i in range(tasks):
        task = part[i]
        if task_i[task, FROZEN] != 0 or task_i[task, PRIORITY] != priority:
            continue
        if task_f[task, CAP] < math.inf:
            a.capped[capped] = task
            capped += 1
        for entry in range(task_i[task, ENTRY], task_i[task, ENTRY_END]):
            if entry_f[entry, WORK] > 0.0:
                room = entry_i[entry, RESOURCE]
                room_f[room, DEMAND] += task_f[task, SHARE] * entry_f[entry, WORK]
                room_i[room, RISING] += 1
    for i in range(rooms):
        room = part[n + i]
        if room_i[room, RISING] > 0:
            room_f[room, HEIGHT] = room_f[room, FREE] / room_f[room, DEMAND]
            a.open[opened] = room
            opened += 1
    return capped, opened


@jit
def demand(a: Arrays, room: int, priority: int) -> None:
    """What the tasks that still rise take of the room; reckoned anew, since differences would lose digits."""
    task_i, task_f, entry_i, entry_f = a.task_i, a.task_f, a.entry_i, a.entry_f
    total, count, entry = 0.0, 0, a.room_i[room, HEAD]
    while entry >= 0:
        task = entry_i[entry, OWNER]
        if task_i[task, FROZEN] == 0 and task_i[task, PRIORITY] == priority and entry_f[entry, WORK] > 0.0:
            total += task_f[task, SHARE] * entry_f[entry, WORK]
            count += 1
        entry = entry_i[entry, AFTER]
    a.room_i[room, RISING] = count
    a.room_i[room, STALE] = 0
    if count > 0:
        a.room_f[room, HEIGHT] = a.room_f[room, FREE] / total


@jit
def level(a: Arrays, capped: int, opened: int, priority: int) -> tuple[float, int, int]:
    """(how far the shares rise until something is at its end, inf if nothing rises; what is left of both lists)."""
    task_i, task_f, room_i, room_f = a.task_i, a.task_f, a.room_i, a.room_f
    highest, i = math.inf, 0
    while i < capped:
        task = a.capped[i]
        if task_i[task, FROZEN] != 0:
            capped -= 1
            a.capped[i] = a.capped[capped]
        else:
            highest = min(highest, task_f[task, CAP] / task_f[task, SHARE])
            i += 1
    i = 0
    while i < opened:
        room = a.open[i]
        if room_i[room, STALE] != 0:
            demand(a, room, priority)
        if room_i[room, RISING] == 0:
            opened -= 1
            a.open[i] = a.open[opened]
        else:
            highest = min(highest, room_f[room, HEIGHT])
            i += 1
    return highest, capped, opened


@jit
def settle(a: Arrays, capped: int, opened: int, priority: int, height: float) -> int:
    """List, in `settled`, the tasks that can rise no further than `height`: how many."""
    task_i, task_f, entry_i, entry_f = a.task_i, a.task_f, a.entry_i, a.entry_f
    limit, count = height * (1.0 + EPS), 0
    for i in range(capped):
        task = a.capped[i]
        if task_f[task, CAP] <= limit * task_f[task, SHARE]:
            task_i[task, FROZEN] = 1
            a.settled[count] = task
            count += 1
    for i in range(opened):
        room = a.open[i]
        if a.room_f[room, HEIGHT] > limit:
            continue
        entry = a.room_i[room, HEAD]
        while entry >= 0:
            task = entry_i[entry, OWNER]
            if task_i[task, FROZEN] == 0 and task_i[task, PRIORITY] == priority and entry_f[entry, WORK] > 0.0:
                task_i[task, FROZEN] = 1
                a.settled[count] = task
                count += 1
            entry = entry_i[entry, AFTER]
    return count


@jit
def charge(a: Arrays, count: int, height: float) -> None:
    """Give the settled tasks their speed and take it from their resources."""
    task_i, task_f, entry_i, entry_f, room_i, room_f = a.task_i, a.task_f, a.entry_i, a.entry_f, a.room_i, a.room_f
    for i in range(count):
        task = a.settled[i]
        speed = height * task_f[task, SHARE]
        task_f[task, NEXT] = speed
        for entry in range(task_i[task, ENTRY], task_i[task, ENTRY_END]):
            room = entry_i[entry, RESOURCE]
            free = room_f[room, FREE] - entry_f[entry, WORK] * speed
            room_f[room, FREE] = free if free > EPS * room_f[room, RATE] else 0.0
            room_i[room, STALE] = 1


@jit
def fill(a: Arrays, tasks: int, rooms: int, priority: int) -> None:
    """Raise the speeds of one priority as far as they go."""
    capped, opened = enter(a, tasks, rooms, priority)
    height, capped, opened = level(a, capped, opened, priority)
    while height < math.inf:
        charge(a, settle(a, capped, opened, priority, height), height)
        height, capped, opened = level(a, capped, opened, priority)
