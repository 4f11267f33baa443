"""The arrays that the compiled loop reads and writes. Constants name the columns; `building.py` fills them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

I8 = NDArray[np.int64]
F8 = NDArray[np.float64]

# task_i columns. An entry is one (task, resource) pair; work, holds, takes and gives are slices of lists.
PHASE, MISSING, PRIORITY, TILES, KIND, PLACE, ENTRY, ENTRY_END, SUCC, SUCC_END, TAKE, TAKE_END, GIVE, GIVE_END, SEEN = (
    range(15)
)
FROZEN, NEXT_WAITING = 15, 16
# task_f columns. LEFT: share of the work to do, as of SINCE. KEY: when the next thing happens to the task. NEXT: the
# speed that it is about to get.
LATENCY, CAP, WEIGHT, LEFT, SINCE, SPEED, KEY, START, END, ALONE, SHARE, ALONE_AT, NEXT = range(13)
# entry_i columns: links of the resource's running entries. entry_f columns: units of work, units held
OWNER, RESOURCE, BEFORE, AFTER = range(4)
WORK, HOLD = range(2)
# room_f columns: resources, then stores. HEIGHT: how far the shares rise until the room is full. room_i columns
RATE, TAKEN, FREE, DEMAND, HEIGHT = range(5)
HEAD, MARK, RISING, STALE = range(4)
# counters. FREED: something that tasks wait for may be there. LAST_BLOCKED: who comes after it has not been tried yet
NOW_SEEN, HEAP_N, DONE, SEGMENTS, FIRST_WAITING, LAST_WAITING, CHANGE, TILED, DIRTY_N, FREED, LAST_BLOCKED = range(11)
# phases
PENDING, WAITING, LAUNCHING, RUNNING, ENDED = range(5)
DIRTY = -1  # MARK of a resource whose running tasks have changed


class Arrays(NamedTuple):
    """n tasks, e entries, r resources and stores."""

    task_i: I8  # [n, 17]
    task_f: F8  # [n, 13]
    entry_i: I8  # [e, 4]
    entry_f: F8  # [e, 2]
    room_i: I8  # [r, 4]
    room_f: F8  # [r, 5]
    successors: I8  # [edges]
    store_i: I8  # [takes and gives] which store
    store_f: F8  # [takes and gives] units
    heap: I8  # [n] tasks that launch or run, the earliest KEY first
    part: I8  # [n + r] scratch: tasks, then resources, of the part of the graph whose speeds change
    settled: I8  # [n] scratch: tasks that have got their speed
    capped: I8  # [n] scratch: rising tasks that cannot be arbitrarily fast
    open: I8  # [r] scratch: resources that rising tasks use
    dirty: I8  # [r] resources whose running tasks have changed
    change_i: I8  # [k] resource of a rate change
    change_f: F8  # [k, 2] when, new rate
    interference: F8  # [kinds, kinds]
    segments: F8  # [capacity, 3] task, since, speed; capacity 0 records nothing
    counters: I8  # [11]
