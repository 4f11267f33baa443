"""The line of tasks whose predecessors have ended: each starts once what it holds and takes is free.

The line goes by priority, then by when the tasks became ready. A task that does not fit lets those behind it pass. Who
was tried is tried again only when something has been freed.
"""

from __future__ import annotations

from simtool.simulator.jit import jit
from simtool.simulator.tasks.arrays import (
    ENTRY,
    ENTRY_END,
    FIRST_WAITING,
    FREED,
    HOLD,
    LAST_BLOCKED,
    LAST_WAITING,
    NEXT_WAITING,
    PHASE,
    PRIORITY,
    RATE,
    RESOURCE,
    TAKE,
    TAKE_END,
    TAKEN,
    WAITING,
    Arrays,
)

_EPS = 1e-12  # what rounding may add to what is taken, relative


@jit
def fits(a: Arrays, task: int) -> bool:
    """Whether what the task holds and takes is free."""
    task_i, room_f = a.task_i, a.room_f
    for entry in range(task_i[task, ENTRY], task_i[task, ENTRY_END]):
        hold = a.entry_f[entry, HOLD]
        if hold > 0.0:
            room = a.entry_i[entry, RESOURCE]
            if room_f[room, TAKEN] + hold > room_f[room, RATE] * (1.0 + _EPS):
                return False
    for i in range(task_i[task, TAKE], task_i[task, TAKE_END]):
        room = a.store_i[i]
        if room_f[room, TAKEN] + a.store_f[i] > room_f[room, RATE] * (1.0 + _EPS):
            return False
    return True


@jit
def ready(a: Arrays, task: int) -> None:
    """Everything before the task has ended: it joins the line, behind those of its priority."""
    task_i, counters = a.task_i, a.counters
    task_i[task, PHASE] = WAITING
    before, following = counters[LAST_WAITING], -1
    if before >= 0 and task_i[before, PRIORITY] > task_i[task, PRIORITY]:
        before, following = -1, counters[FIRST_WAITING]
        while task_i[following, PRIORITY] <= task_i[task, PRIORITY]:
            before, following = following, task_i[following, NEXT_WAITING]
        counters[FREED] = 1  # it may stand before tasks that were tried
    task_i[task, NEXT_WAITING] = following
    if before >= 0:
        task_i[before, NEXT_WAITING] = task
    else:
        counters[FIRST_WAITING] = task
    if following < 0:
        counters[LAST_WAITING] = task


@jit
def next_fitting(a: Arrays) -> int:
    """Take the first task that fits out of the line; -1 where none does."""
    task_i, counters = a.task_i, a.counters
    if counters[FREED] != 0:
        counters[FREED] = 0
        counters[LAST_BLOCKED] = -1
    before = counters[LAST_BLOCKED]
    task = task_i[before, NEXT_WAITING] if before >= 0 else counters[FIRST_WAITING]
    while task >= 0 and not fits(a, task):
        before, task = task, task_i[task, NEXT_WAITING]
    counters[LAST_BLOCKED] = before
    if task < 0:
        return -1
    following = task_i[task, NEXT_WAITING]
    if before >= 0:
        task_i[before, NEXT_WAITING] = following
    else:
        counters[FIRST_WAITING] = following
    if following < 0:
        counters[LAST_WAITING] = before
    return int(task)
