"""The heap of tasks that launch or run, the earliest KEY first; each task knows its place, so that a key can change.

Equal keys go by the order of the graph, so that what happens at once does not hang on the heap's history.
"""

from __future__ import annotations

from simtool.simulator.jit import jit
from simtool.simulator.tasks.arrays import HEAP_N, KEY, PLACE, Arrays


@jit
def rise(a: Arrays, place: int) -> None:
    """Move the task at `place` up to where its key belongs."""
    heap, task_i, task_f = a.heap, a.task_i, a.task_f
    task = heap[place]
    key = task_f[task, KEY]
    while place > 0:
        above = (place - 1) >> 1
        other = task_f[heap[above], KEY]
        if other < key or (other == key and heap[above] < task):
            break
        heap[place] = heap[above]
        task_i[heap[place], PLACE] = place
        place = above
    heap[place] = task
    task_i[task, PLACE] = place


@jit
def sink(a: Arrays, place: int) -> None:
    """Move the task at `place` down to where its key belongs."""
    heap, task_i, task_f = a.heap, a.task_i, a.task_f
    task, count = heap[place], a.counters[HEAP_N]
    key = task_f[task, KEY]
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        other = task_f[heap[below], KEY]
        if below + 1 < count:
            beside = task_f[heap[below + 1], KEY]
            if beside < other or (beside == other and heap[below + 1] < heap[below]):
                below, other = below + 1, beside
        if key < other or (key == other and task < heap[below]):
            break
        heap[place] = heap[below]
        task_i[heap[place], PLACE] = place
        place = below
    heap[place] = task
    task_i[task, PLACE] = place


@jit
def push(a: Arrays, task: int) -> None:
    """Put in a task whose KEY is set."""
    place = a.counters[HEAP_N]
    a.heap[place] = task
    a.task_i[task, PLACE] = place
    a.counters[HEAP_N] += 1
    rise(a, place)


@jit
def pop(a: Arrays) -> int:
    """Take out the earliest task."""
    task = a.heap[0]
    a.counters[HEAP_N] -= 1
    count = a.counters[HEAP_N]
    if count > 0:
        a.heap[0] = a.heap[count]
        a.task_i[a.heap[0], PLACE] = 0
        sink(a, 0)
    return int(task)


@jit
def rekey(a: Arrays, task: int, key: float) -> None:
    """Give a task of the heap another KEY."""
    before = a.task_f[task, KEY]
    a.task_f[task, KEY] = key
    if key < before:
        rise(a, a.task_i[task, PLACE])
    elif key > before:
        sink(a, a.task_i[task, PLACE])
