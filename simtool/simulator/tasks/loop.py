"""The event loop of a task graph: tasks start, are served, end. Speeds change only when the running tasks do."""

from __future__ import annotations

import math

from simtool.simulator.jit import jit, jit_entry
from simtool.simulator.tasks.arrays import (
    AFTER,
    BEFORE,
    CAP,
    CHANGE,
    DIRTY,
    DIRTY_N,
    DONE,
    END,
    ENDED,
    ENTRY,
    ENTRY_END,
    FREED,
    GIVE,
    GIVE_END,
    HEAD,
    HEAP_N,
    HOLD,
    KEY,
    LATENCY,
    LAUNCHING,
    LEFT,
    MARK,
    MISSING,
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
    Arrays,
)
from simtool.simulator.tasks.line import next_fitting, ready
from simtool.simulator.tasks.queue import pop, push
from simtool.simulator.tasks.sharing import record, share

_SAME = 1e-12  # events this near, relative to the clock, are one


@jit
def touch(a: Arrays, room: int) -> None:
    """Mark a resource whose running tasks have changed."""
    if a.room_i[room, MARK] != DIRTY:
        a.room_i[room, MARK] = DIRTY
        a.dirty[a.counters[DIRTY_N]] = room
        a.counters[DIRTY_N] += 1


@jit
def begin(a: Arrays, task: int, now_s: float) -> None:
    """The task's work is served from now on."""
    task_i, task_f, entry_i, room_i = a.task_i, a.task_f, a.entry_i, a.room_i
    task_i[task, PHASE] = RUNNING
    task_f[task, SINCE] = now_s
    first, last = task_i[task, ENTRY], task_i[task, ENTRY_END]
    if first == last:
        speed = task_f[task, CAP]
        task_f[task, SPEED] = speed
        record(a, task, now_s, speed)
        task_f[task, KEY] = now_s + task_f[task, LEFT] / speed
        push(a, task)
        return
    task_f[task, KEY] = math.inf
    push(a, task)
    for entry in range(first, last):
        room = entry_i[entry, RESOURCE]
        head = room_i[room, HEAD]
        entry_i[entry, AFTER], entry_i[entry, BEFORE] = head, -1
        if head >= 0:
            entry_i[head, BEFORE] = entry
        room_i[room, HEAD] = entry
        touch(a, room)


@jit
def start(a: Arrays, task: int, now_s: float) -> None:
    """The task takes what it needs and is launched."""
    task_i, task_f, room_f = a.task_i, a.task_f, a.room_f
    task_f[task, START] = now_s
    for entry in range(task_i[task, ENTRY], task_i[task, ENTRY_END]):
        if a.entry_f[entry, HOLD] > 0.0:
            room_f[a.entry_i[entry, RESOURCE], TAKEN] += a.entry_f[entry, HOLD]
            touch(a, a.entry_i[entry, RESOURCE])
    for i in range(task_i[task, TAKE], task_i[task, TAKE_END]):
        room_f[a.store_i[i], TAKEN] += a.store_f[i]
    if task_f[task, LATENCY] > 0.0:
        task_i[task, PHASE] = LAUNCHING
        task_f[task, KEY] = now_s + task_f[task, LATENCY]
        push(a, task)
    else:
        begin(a, task, now_s)


@jit
def leave(a: Arrays, task: int) -> None:
    """The task frees its resources and gives to stores."""
    task_i, entry_i, room_i, room_f = a.task_i, a.entry_i, a.room_i, a.room_f
    for entry in range(task_i[task, ENTRY], task_i[task, ENTRY_END]):
        room, after, before = entry_i[entry, RESOURCE], entry_i[entry, AFTER], entry_i[entry, BEFORE]
        if before >= 0:
            entry_i[before, AFTER] = after
        else:
            room_i[room, HEAD] = after
        if after >= 0:
            entry_i[after, BEFORE] = before
        if a.entry_f[entry, HOLD] > 0.0:
            room_f[room, TAKEN] = max(room_f[room, TAKEN] - a.entry_f[entry, HOLD], 0.0)
            a.counters[FREED] = 1
        touch(a, room)
    for i in range(task_i[task, GIVE], task_i[task, GIVE_END]):
        room_f[a.store_i[i], TAKEN] = max(room_f[a.store_i[i], TAKEN] - a.store_f[i], 0.0)
        a.counters[FREED] = 1


@jit
def finish(a: Arrays, task: int, now_s: float) -> None:
    """The task ends, gives back and lets its successors go."""
    task_i, task_f = a.task_i, a.task_f
    task_i[task, PHASE] = ENDED
    task_f[task, END] = now_s
    task_f[task, LEFT] = 0.0
    a.counters[DONE] += 1
    leave(a, task)
    for i in range(task_i[task, SUCC], task_i[task, SUCC_END]):
        after = a.successors[i]
        task_i[after, MISSING] -= 1
        if task_i[after, MISSING] == 0:
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
    task = next_fitting(a)
    while task >= 0:
        start(a, task, now_s)
        task = next_fitting(a)


@jit
def refresh(a: Arrays, now_s: float) -> None:
    """New speeds wherever something changed."""
    a.counters[NOW_SEEN] += 1
    for i in range(a.counters[DIRTY_N]):
        if a.room_i[a.dirty[i], MARK] == DIRTY:
            share(a, a.dirty[i], now_s)
    a.counters[DIRTY_N] = 0


@jit
def change_rates(a: Arrays, now_s: float) -> None:
    """Rates that are new from `now_s` on."""
    while a.counters[CHANGE] < a.change_i.shape[0] and a.change_f[a.counters[CHANGE], 0] <= now_s:
        room = a.change_i[a.counters[CHANGE]]
        a.room_f[room, RATE] = a.change_f[a.counters[CHANGE], 1]
        touch(a, room)
        a.counters[CHANGE] += 1
        a.counters[FREED] = 1


@jit_entry
def run_graph(a: Arrays) -> float:
    """Run the graph to its end or until nothing can happen any more: the time then. DONE counts the ended tasks."""
    now_s, n = 0.0, a.task_i.shape[0]
    for task in range(n):
        if a.task_i[task, PHASE] == PENDING and a.task_i[task, MISSING] == 0:
            ready(a, task)
    while True:
        change_rates(a, now_s)
        due(a, now_s)
        while a.counters[HEAP_N] > 0 and a.task_f[a.heap[0], KEY] <= now_s:
            due(a, now_s)
        refresh(a, now_s)
        next_s = a.task_f[a.heap[0], KEY] if a.counters[HEAP_N] > 0 else math.inf
        if a.counters[CHANGE] < a.change_i.shape[0] and a.counters[DONE] < n:
            next_s = min(next_s, a.change_f[a.counters[CHANGE], 0])
        if next_s == math.inf:
            return now_s
        now_s = max(now_s, next_s)
