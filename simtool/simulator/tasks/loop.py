"""The event loop of a task graph: tasks start, are served, end. Speeds change only when the running tasks do."""

from __future__ import annotations

import math

from simtool.simulator.jit import jit, jit_entry
from simtool.simulator.tasks.arrays import (
    AFTER,
    BEFORE,
    CAP,
    CHANGE,
    DONE,
    END,
    ENDED,
    ENTRY,
    ENTRY_END,
    FIRST_WAITING,
    GIVE,
    GIVE_END,
    HEAD,
    HEAP_N,
    HOLD,
    KEY,
    LAST_WAITING,
    LATENCY,
    LAUNCHING,
    LEFT,
    MARK,
    MISSING,
    NEXT_WAITING,
    NOW_SEEN,
    PENDING,
    PHASE,
    RATE,
    RESOURCE,
    RUNNING,
    SINCE,
    SPEED,
    START,
    SUCC,
    SUCC_END,
    TAKE,
    TAKE_END,
    TAKEN,
    WAITING,
    Arrays,
)
from simtool.simulator.tasks.queue import pop, push
from simtool.simulator.tasks.sharing import record, share

_SAME = 1e-12  # events this near, relative to the clock, are one


@jit
def fits(a: Arrays, task: int) -> bool:
    """Whether what the task holds and takes is free."""
    for entry in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
        room, hold = a.entry_i[entry, RESOURCE], a.entry_f[entry, HOLD]
        if hold > 0.0 and a.room_f[room, TAKEN] + hold > a.room_f[room, RATE] * (1.0 + _SAME):
            return False
    for i in range(a.task_i[task, TAKE], a.task_i[task, TAKE_END]):
        room = a.store_i[i]
        if a.room_f[room, TAKEN] + a.store_f[i] > a.room_f[room, RATE] * (1.0 + _SAME):
            return False
    return True


@jit
def touch(a: Arrays, room: int) -> None:
    """Mark a resource whose running tasks have changed."""
    a.room_i[room, MARK] = -1


@jit
def begin(a: Arrays, task: int, now_s: float) -> None:
    """The task's work is served from now on."""
    a.task_i[task, PHASE] = RUNNING
    a.task_f[task, SINCE] = now_s
    if a.task_i[task, ENTRY] == a.task_i[task, ENTRY_END]:
        speed = a.task_f[task, CAP]
        a.task_f[task, SPEED] = speed
        record(a, task, now_s, speed)
        a.task_f[task, KEY] = now_s + a.task_f[task, LEFT] / speed
        push(a, task)
        return
    a.task_f[task, KEY] = math.inf
    push(a, task)
    for entry in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
        room = a.entry_i[entry, RESOURCE]
        head = a.room_i[room, HEAD]
        a.entry_i[entry, AFTER], a.entry_i[entry, BEFORE] = head, -1
        if head >= 0:
            a.entry_i[head, BEFORE] = entry
        a.room_i[room, HEAD] = entry
        touch(a, room)


@jit
def start(a: Arrays, task: int, now_s: float) -> None:
    """The task takes what it needs and is launched."""
    a.task_f[task, START] = now_s
    for entry in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
        if a.entry_f[entry, HOLD] > 0.0:
            a.room_f[a.entry_i[entry, RESOURCE], TAKEN] += a.entry_f[entry, HOLD]
            touch(a, a.entry_i[entry, RESOURCE])
    for i in range(a.task_i[task, TAKE], a.task_i[task, TAKE_END]):
        a.room_f[a.store_i[i], TAKEN] += a.store_f[i]
    if a.task_f[task, LATENCY] > 0.0:
        a.task_i[task, PHASE] = LAUNCHING
        a.task_f[task, KEY] = now_s + a.task_f[task, LATENCY]
        push(a, task)
    else:
        begin(a, task, now_s)


@jit
def ready(a: Arrays, task: int) -> None:
    """Everything before the task has ended: it waits to be started, at the end of the line."""
    a.task_i[task, PHASE] = WAITING
    a.task_i[task, NEXT_WAITING] = -1
    last = a.counters[LAST_WAITING]
    if last >= 0:
        a.task_i[last, NEXT_WAITING] = task
    else:
        a.counters[FIRST_WAITING] = task
    a.counters[LAST_WAITING] = task


@jit
def admit(a: Arrays, now_s: float) -> None:
    """Start, in the order of the line, every task that fits."""
    before, task = -1, a.counters[FIRST_WAITING]
    while task >= 0:
        following = a.task_i[task, NEXT_WAITING]
        if fits(a, task):
            if before >= 0:
                a.task_i[before, NEXT_WAITING] = following
            else:
                a.counters[FIRST_WAITING] = following
            if following < 0:
                a.counters[LAST_WAITING] = before
            start(a, task, now_s)
        else:
            before = task
        task = following


@jit
def finish(a: Arrays, task: int, now_s: float) -> None:
    """The task ends, gives back and lets its successors go."""
    a.task_i[task, PHASE] = ENDED
    a.task_f[task, END] = now_s
    a.task_f[task, LEFT] = 0.0
    a.counters[DONE] += 1
    for entry in range(a.task_i[task, ENTRY], a.task_i[task, ENTRY_END]):
        room, after, before = a.entry_i[entry, RESOURCE], a.entry_i[entry, AFTER], a.entry_i[entry, BEFORE]
        if before >= 0:
            a.entry_i[before, AFTER] = after
        else:
            a.room_i[room, HEAD] = after
        if after >= 0:
            a.entry_i[after, BEFORE] = before
        a.room_f[room, TAKEN] = max(a.room_f[room, TAKEN] - a.entry_f[entry, HOLD], 0.0)
        touch(a, room)
    for i in range(a.task_i[task, GIVE], a.task_i[task, GIVE_END]):
        a.room_f[a.store_i[i], TAKEN] = max(a.room_f[a.store_i[i], TAKEN] - a.store_f[i], 0.0)
    for i in range(a.task_i[task, SUCC], a.task_i[task, SUCC_END]):
        after = a.successors[i]
        a.task_i[after, MISSING] -= 1
        if a.task_i[after, MISSING] == 0:
            ready(a, after)


@jit
def due(a: Arrays, now_s: float) -> None:
    """Everything that happens at `now_s`: launches that are over, ends of work, and what they set off at once."""
    limit = now_s * (1.0 + _SAME)
    while a.counters[HEAP_N] > 0 and a.task_f[a.heap[0], KEY] <= limit:
        task = pop(a)
        if a.task_i[task, PHASE] == LAUNCHING:
            begin(a, task, now_s)
        else:
            finish(a, task, now_s)
    admit(a, now_s)


@jit
def refresh(a: Arrays, now_s: float) -> None:
    """New speeds wherever something changed."""
    a.counters[NOW_SEEN] += 1
    for room in range(a.room_i.shape[0]):
        if a.room_i[room, MARK] == -1:
            share(a, room, now_s)


@jit
def change_rates(a: Arrays, now_s: float) -> None:
    """Rates that are new from `now_s` on."""
    while a.counters[CHANGE] < a.change_i.shape[0] and a.change_f[a.counters[CHANGE], 0] <= now_s:
        room = a.change_i[a.counters[CHANGE]]
        a.room_f[room, RATE] = a.change_f[a.counters[CHANGE], 1]
        touch(a, room)
        a.counters[CHANGE] += 1


@jit_entry
def run_graph(a: Arrays) -> float:
    """Run the graph to its end or until nothing can happen any more: the time then. DONE counts the ended tasks."""
    now_s = 0.0
    for task in range(a.task_i.shape[0]):
        if a.task_i[task, PHASE] == PENDING and a.task_i[task, MISSING] == 0:
            ready(a, task)
    while True:
        change_rates(a, now_s)
        due(a, now_s)
        while a.counters[HEAP_N] > 0 and a.task_f[a.heap[0], KEY] <= now_s:
            due(a, now_s)
        refresh(a, now_s)
        next_s = a.task_f[a.heap[0], KEY] if a.counters[HEAP_N] > 0 else math.inf
        if a.counters[CHANGE] < a.change_i.shape[0] and a.counters[DONE] < a.task_i.shape[0]:
            next_s = min(next_s, a.change_f[a.counters[CHANGE], 0])
        if next_s == math.inf:
            return now_s
        now_s = max(now_s, next_s)
