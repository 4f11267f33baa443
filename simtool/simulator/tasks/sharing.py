"""Who gets how much: the tasks that share resources, directly or through others, get new speeds together."""

from __future__ import annotations

import math

from simtool.simulator.jit import jit
from simtool.simulator.tasks.arrays import (
    AFTER,
    ALONE,
    ALONE_AT,
    CAP,
    CHANGE,
    ENTRY,
    ENTRY_END,
    FREE,
    FROZEN,
    HEAD,
    KIND,
    LEFT,
    MARK,
    NEXT,
    NOW_SEEN,
    OWNER,
    RATE,
    RESOURCE,
    SEEN,
    SEGMENTS,
    SHARE,
    SINCE,
    SPEED,
    TAKEN,
    TILED,
    TILES,
    WEIGHT,
    WORK,
    Arrays,
)
from simtool.simulator.tasks.filling import EPS, fill, next_priority
from simtool.simulator.tasks.queue import rekey


@jit
def gather(a: Arrays, room: int) -> tuple[int, int]:
    """(tasks, rooms) that are tied to `room` by running tasks; listed in `part`: tasks from 0, rooms from n."""
    task_i, entry_i, room_i, part = a.task_i, a.entry_i, a.room_i, a.part
    seen, n = a.counters[NOW_SEEN], task_i.shape[0]
    room_i[room, MARK] = seen
    part[n] = room
    tasks, rooms, at = 0, 1, 0
    while at < rooms:
        entry = room_i[part[n + at], HEAD]
        at += 1
        while entry >= 0:
            task = entry_i[entry, OWNER]
            entry = entry_i[entry, AFTER]
            if task_i[task, SEEN] == seen:
                continue
            task_i[task, SEEN] = seen
            part[tasks] = task
            tasks += 1
            for other in range(task_i[task, ENTRY], task_i[task, ENTRY_END]):
                near = entry_i[other, RESOURCE]
                if room_i[near, MARK] != seen:
                    room_i[near, MARK] = seen
                    part[n + rooms] = near
                    rooms += 1
    return tasks, rooms


def wave_share(tiles: int, units: float) -> float:
    """Share of the speed that is left where `tiles` run on `units` multiprocessors in whole waves."""
    exact = tiles / units
    return float(exact / math.ceil(exact * (1.0 - EPS)))


waves = jit(wave_share)


@jit
def alone(a: Arrays, task: int) -> float:
    """Speed of the task with all resources to itself; inf where it has no work and nothing holds it up."""
    task_i, entry_i, entry_f, room_f = a.task_i, a.entry_i, a.entry_f, a.room_f
    speed, tiles, tiled = a.task_f[task, CAP], task_i[task, TILES], a.counters[TILED]
    for entry in range(task_i[task, ENTRY], task_i[task, ENTRY_END]):
        work, room = entry_f[entry, WORK], entry_i[entry, RESOURCE]
        if work > 0.0:
            most = room_f[room, RATE] / work
            if room == tiled and tiles > 0 and most > 0.0:
                most *= waves(tiles, room_f[room, RATE])
            speed = min(speed, most)
    return float(speed)


@jit
def works(a: Arrays, task: int) -> bool:
    """Whether the task has work on any resource."""
    entry_f, most = a.entry_f, 0.0
    for entry in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
        most = max(most, entry_f[entry, WORK])
    return most > 0.0


@jit
def open_part(a: Arrays, tasks: int, rooms: int) -> None:
    """Nobody has anything and every resource is free, but for what is held."""
    task_i, task_f, room_f, part = a.task_i, a.task_f, a.room_f, a.part
    n, change = task_i.shape[0], a.counters[CHANGE]
    for i in range(rooms):
        room = part[n + i]
        free = room_f[room, RATE] - room_f[room, TAKEN]
        room_f[room, FREE] = free if free > EPS * room_f[room, RATE] else 0.0
    for i in range(tasks):
        task = part[i]
        if task_f[task, ALONE_AT] != change:  # rates have changed, or it is new
            task_f[task, ALONE] = alone(a, task)
            task_f[task, ALONE_AT] = change
        own = task_f[task, WEIGHT]
        task_f[task, SHARE] = own if own > 0.0 else task_f[task, ALONE]
        task_f[task, NEXT] = 0.0
        task_i[task, FROZEN] = 1 if task_f[task, ALONE] <= 0.0 else 0
        if not works(a, task):  # it only holds
            task_i[task, FROZEN] = 1
            task_f[task, NEXT] = task_f[task, CAP]


@jit
def slowest_beside(a: Arrays, task: int) -> float:
    """Smallest factor of the interference table over the tasks that run on a resource of this one."""
    task_i, entry_i, slowest = a.task_i, a.entry_i, 1.0
    for entry in range(task_i[task, ENTRY], task_i[task, ENTRY_END]):
        beside = a.room_i[entry_i[entry, RESOURCE], HEAD]
        while beside >= 0:
            other = entry_i[beside, OWNER]
            if other != task:
                slowest = min(slowest, a.interference[task_i[task, KIND], task_i[other, KIND]])
            beside = entry_i[beside, AFTER]
    return float(slowest)


@jit
def slowed(a: Arrays, task: int) -> float:
    """The task's next speed after waves, on the multiprocessors that it has or could have, and interference."""
    speed, tiles = a.task_f[task, NEXT], a.task_i[task, TILES]
    if tiles > 0 and speed > 0.0:
        for entry in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
            room, work = a.entry_i[entry, RESOURCE], a.entry_f[entry, WORK]
            if room == a.counters[TILED] and work > 0.0:
                units = work * speed + a.room_f[room, FREE]
                speed = min(speed, units / work * waves(tiles, units))
    if a.interference.shape[0] > 1:
        speed *= slowest_beside(a, task)
    return float(speed)


@jit
def record(a: Arrays, task: int, now_s: float, speed: float) -> None:
    """Note a change of speed; counts on where there is no room, so that a second run knows how much it takes."""
    segments, place = a.segments, a.counters[SEGMENTS]
    if place < segments.shape[0]:
        segments[place, 0], segments[place, 1], segments[place, 2] = task, now_s, speed
    a.counters[SEGMENTS] += 1


@jit
def set_speed(a: Arrays, task: int, speed: float, now_s: float) -> None:
    """From now on the task runs at `speed`; what it did at the old one is done."""
    task_f = a.task_f
    left = max(task_f[task, LEFT] - task_f[task, SPEED] * (now_s - task_f[task, SINCE]), 0.0)
    task_f[task, LEFT] = left
    task_f[task, SINCE] = now_s
    task_f[task, SPEED] = speed
    record(a, task, now_s, speed)
    rekey(a, task, now_s if left == 0.0 else now_s + left / speed if speed > 0.0 else math.inf)


@jit
def share(a: Arrays, room: int, now_s: float) -> None:
    """New speeds for all tasks that are tied to `room`."""
    tasks, rooms = gather(a, room)
    if tasks == 0:
        return
    open_part(a, tasks, rooms)
    rising, priority = next_priority(a, tasks)
    while rising:
        fill(a, tasks, rooms, priority)
        rising, priority = next_priority(a, tasks)
    for i in range(tasks):
        task = a.part[i]
        speed = slowed(a, task)
        if speed != a.task_f[task, SPEED]:
            set_speed(a, task, speed, now_s)
