"""Who gets how much: progressive filling over the tasks that share resources, directly or through others.

Speeds of one priority rise together, each in proportion to its weight, until a resource is used up or a task is as fast
as it can be; what is left goes to the others, then to the next priority (Bertsekas, Gallager, "Data Networks", 6.5.2).
"""

from __future__ import annotations

import math

from simtool.simulator.jit import jit
from simtool.simulator.tasks.arrays import (
    AFTER,
    ALONE,
    ALONE_AT,
    CAP,
    CHANGE,
    DEMAND,
    ENTRY,
    ENTRY_END,
    FREE,
    FROZEN,
    HEAD,
    KIND,
    LEFT,
    MARK,
    NOW_SEEN,
    OWNER,
    PRIORITY,
    RATE,
    RESOURCE,
    RISING,
    SEEN,
    SEGMENTS,
    SHARE,
    SINCE,
    SPEED,
    STALE,
    TAKEN,
    TILED,
    TILES,
    WEIGHT,
    WORK,
    Arrays,
)
from simtool.simulator.tasks.queue import rekey

_EPS = 1e-12  # what rounding may leave of a saturated resource, relative


@jit
def gather(a: Arrays, room: int) -> tuple[int, int]:
    """(tasks, rooms) that are tied to `room` by running tasks; listed in `part`: tasks from 0, rooms from n."""
    seen, n = a.counters[NOW_SEEN], a.task_i.shape[0]
    a.room_i[room, MARK] = seen
    a.part[n] = room
    tasks, rooms, at = 0, 1, 0
    while at < rooms:
        entry = a.room_i[a.part[n + at], HEAD]
        at += 1
        while entry >= 0:
            task = a.entry_i[entry, OWNER]
            entry = a.entry_i[entry, AFTER]
            if a.task_i[task, SEEN] == seen:
                continue
            a.task_i[task, SEEN] = seen
            a.part[tasks] = task
            tasks += 1
            for other in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
                near = a.entry_i[other, RESOURCE]
                if a.room_i[near, MARK] != seen:
                    a.room_i[near, MARK] = seen
                    a.part[n + rooms] = near
                    rooms += 1
    return tasks, rooms


@jit
def waves(tiles: int, units: float) -> float:
    """Share of the speed that is left where `tiles` run on `units` multiprocessors in whole waves."""
    exact = tiles / units
    return float(exact / math.ceil(exact * (1.0 - _EPS)))


@jit
def alone(a: Arrays, task: int) -> float:
    """Speed of the task with all resources to itself."""
    speed = a.task_f[task, CAP]
    for entry in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
        work, room = a.entry_f[entry, WORK], a.entry_i[entry, RESOURCE]
        if work > 0.0:
            most = a.room_f[room, RATE] / work
            if room == a.counters[TILED] and a.task_i[task, TILES] > 0 and most > 0.0:
                most *= waves(a.task_i[task, TILES], a.room_f[room, RATE])
            speed = min(speed, most)
    return float(speed)


@jit
def works(a: Arrays, task: int) -> bool:
    """Whether the task has work on any resource."""
    most = 0.0
    for entry in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
        most = max(most, a.entry_f[entry, WORK])
    return most > 0.0


@jit
def open_part(a: Arrays, tasks: int, rooms: int, now_s: float) -> None:
    """Work done so far at the old speeds; then nobody has anything and every resource is free."""
    n = a.task_i.shape[0]
    for i in range(rooms):
        room = a.part[n + i]
        a.room_f[room, FREE] = max(a.room_f[room, RATE] - a.room_f[room, TAKEN], 0.0)
    for i in range(tasks):
        task = a.part[i]
        done = a.task_f[task, SPEED] * (now_s - a.task_f[task, SINCE])
        a.task_f[task, LEFT] = max(a.task_f[task, LEFT] - done, 0.0)
        a.task_f[task, SINCE] = now_s
        a.task_f[task, SPEED] = 0.0
        if a.task_f[task, ALONE_AT] != a.counters[CHANGE]:  # rates have changed, or it is new
            a.task_f[task, ALONE] = alone(a, task)
            a.task_f[task, ALONE_AT] = a.counters[CHANGE]
        own = a.task_f[task, WEIGHT]
        a.task_f[task, SHARE] = own if own > 0.0 else a.task_f[task, ALONE]
        a.task_i[task, FROZEN] = 1 if a.task_f[task, ALONE] <= 0.0 else 0
        if not works(a, task):  # it only holds
            a.task_i[task, FROZEN] = 1
            a.task_f[task, SPEED] = a.task_f[task, CAP]


@jit
def demand(a: Arrays, room: int, priority: int) -> None:
    """What the rising tasks of a priority take of the room at height 1, and how many they are."""
    total, count = 0.0, 0
    entry = a.room_i[room, HEAD]
    while entry >= 0:
        task = a.entry_i[entry, OWNER]
        if a.task_i[task, FROZEN] == 0 and a.task_i[task, PRIORITY] == priority and a.entry_f[entry, WORK] > 0.0:
            total += a.task_f[task, SHARE] * a.entry_f[entry, WORK]
            count += 1
        entry = a.entry_i[entry, AFTER]
    a.room_f[room, DEMAND] = total
    a.room_i[room, RISING] = count
    a.room_i[room, STALE] = 0


@jit
def level(a: Arrays, tasks: int, rooms: int, priority: int) -> float:
    """How far the speeds of a priority rise, in shares, until a resource or a task is at its end; inf: none rises."""
    n, highest = a.task_i.shape[0], math.inf
    for i in range(tasks):
        task = a.part[i]
        if a.task_i[task, FROZEN] == 0 and a.task_i[task, PRIORITY] == priority:
            highest = min(highest, a.task_f[task, CAP] / a.task_f[task, SHARE])
    for i in range(rooms):
        room = a.part[n + i]
        if a.room_i[room, STALE] != 0:
            demand(a, room, priority)
        if a.room_i[room, RISING] > 0:
            highest = min(highest, a.room_f[room, FREE] / a.room_f[room, DEMAND])
    return highest


@jit
def settle(a: Arrays, tasks: int, rooms: int, priority: int, height: float) -> int:
    """List, in `settled`, the tasks that can rise no further than `height`: how many."""
    n, limit, count = a.task_i.shape[0], height * (1.0 + _EPS), 0
    for i in range(tasks):
        task = a.part[i]
        rises = a.task_i[task, FROZEN] == 0 and a.task_i[task, PRIORITY] == priority
        if rises and a.task_f[task, CAP] <= limit * a.task_f[task, SHARE]:
            a.task_i[task, FROZEN] = 1
            a.settled[count] = task
            count += 1
    for i in range(rooms):
        room = a.part[n + i]
        if a.room_i[room, RISING] == 0 or a.room_f[room, FREE] > limit * a.room_f[room, DEMAND]:
            continue
        entry = a.room_i[room, HEAD]
        while entry >= 0:
            task = a.entry_i[entry, OWNER]
            if a.task_i[task, FROZEN] == 0 and a.task_i[task, PRIORITY] == priority and a.entry_f[entry, WORK] > 0.0:
                a.task_i[task, FROZEN] = 1
                a.settled[count] = task
                count += 1
            entry = a.entry_i[entry, AFTER]
    return count


@jit
def charge(a: Arrays, count: int, height: float) -> None:
    """Give the settled tasks their speed and take it from their resources."""
    for i in range(count):
        task = a.settled[i]
        speed = height * a.task_f[task, SHARE]
        a.task_f[task, SPEED] = speed
        for entry in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
            room = a.entry_i[entry, RESOURCE]
            a.room_f[room, FREE] = max(a.room_f[room, FREE] - a.entry_f[entry, WORK] * speed, 0.0)
            a.room_i[room, STALE] = 1


@jit
def fill(a: Arrays, tasks: int, rooms: int, priority: int) -> None:
    """Raise the speeds of one priority as far as they go."""
    n = a.task_i.shape[0]
    for i in range(rooms):
        a.room_i[a.part[n + i], STALE] = 1
    height = level(a, tasks, rooms, priority)
    while height < math.inf:
        charge(a, settle(a, tasks, rooms, priority, height), height)
        height = level(a, tasks, rooms, priority)


@jit
def next_priority(a: Arrays, tasks: int) -> tuple[bool, int]:
    """(whether some task still rises, the first priority among them)."""
    some, first = False, 0
    for i in range(tasks):
        task = a.part[i]
        if a.task_i[task, FROZEN] == 0 and (not some or a.task_i[task, PRIORITY] < first):
            some, first = True, a.task_i[task, PRIORITY]
    return some, first


@jit
def slowed(a: Arrays, task: int) -> float:
    """The task's speed after waves and interference."""
    speed, slowest = a.task_f[task, SPEED], 1.0
    if a.task_i[task, TILES] == 0 and a.interference.shape[0] == 1:
        return float(speed)
    for entry in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
        room = a.entry_i[entry, RESOURCE]
        units = a.entry_f[entry, WORK] * speed
        full = a.room_f[room, FREE] <= 1e-9 * a.room_f[room, RATE]
        if room == a.counters[TILED] and a.task_i[task, TILES] > 0 and full and units > 0.0:
            speed *= waves(a.task_i[task, TILES], units)
        if a.interference.shape[0] > 1:
            beside = a.room_i[room, HEAD]
            while beside >= 0:
                other = a.entry_i[beside, OWNER]
                if other != task:
                    slowest = min(slowest, a.interference[a.task_i[task, KIND], a.task_i[other, KIND]])
                beside = a.entry_i[beside, AFTER]
    return float(speed * slowest)


@jit
def record(a: Arrays, task: int, now_s: float, speed: float) -> None:
    """Note a change of speed; counts on where there is no room, so that a second run knows how much it takes."""
    place = a.counters[SEGMENTS]
    if place < a.segments.shape[0]:
        a.segments[place, 0], a.segments[place, 1], a.segments[place, 2] = task, now_s, speed
    a.counters[SEGMENTS] += 1


@jit
def share(a: Arrays, room: int, now_s: float) -> None:
    """New speeds for all tasks that are tied to `room`."""
    tasks, rooms = gather(a, room)
    if tasks == 0:
        return
    open_part(a, tasks, rooms, now_s)
    rising, priority = next_priority(a, tasks)
    while rising:
        fill(a, tasks, rooms, priority)
        rising, priority = next_priority(a, tasks)
    for i in range(tasks):  # all from the same speeds; the column is free by now
        a.task_f[a.part[i], SHARE] = slowed(a, a.part[i])
    for i in range(tasks):
        task = a.part[i]
        speed = a.task_f[task, SHARE]
        a.task_f[task, SPEED] = speed
        record(a, task, now_s, speed)
        rekey(a, task, now_s + a.task_f[task, LEFT] / speed if speed > 0.0 else math.inf)
