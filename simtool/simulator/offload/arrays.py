"""The arrays that the compiled walk reads and writes. Constants name the columns; `building.py` fills them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

I8 = NDArray[np.int64]
F8 = NDArray[np.float64]

NONE = -1
UNBOUNDED = 1 << 60  # bytes of host memory that holds every object, in no order
# object_i columns. POOL, HOST: where it is or is coming to (NONE: not in HBM, not in host memory), each with its
# neighbours in the order of use. PHASE: of its transfer. URGENCY, BEFORE, AFTER: its queue. USES: visits that needed
# it. LOADED: when it was loaded last, in touches. NEXT: the next visit that needs it. WANTED: the visit that it is
# predicted for. FRESH: prefetched and not needed since. LOCK: the visit that needs it. RANK: its place in the order
# in which that visit computes. LOG: the row of its transfer
(
    LAYER,
    BYTES,
    POOL,
    OLDER,
    NEWER,
    HOST,
    HOST_OLDER,
    HOST_NEWER,
    PHASE,
    URGENCY,
    BEFORE,
    AFTER,
    USES,
    LOADED,
    NEXT,
    WANTED,
    FRESH,
    LOCK,
    RANK,
    LOG,
) = range(20)
# object_f columns. LEFT: seconds of the link that its present transfer still needs
LOAD_S, READ_S, LEFT = range(3)
# phases of a transfer
IDLE, LOADING, READING = range(3)  # link LOADING - 1 or READING - 1
# urgencies: a demand load goes before prefetches, and these before prefetches that were wrong
DEMAND, AHEAD, DEMOTED = range(3)
# pool_i columns: ends of the order of use, bytes
OLDEST, NEWEST, CAPACITY, USED = range(4)
# link_f columns
CLOCK, BUSY = range(2)
# rules
ADMIT, EVICT, PREFETCH, WINDOW, MOST, WRAPS, DEMOTE, MISS, ORDER = range(9)
# evict, prefetch, miss and order: indices of the words in policy.py
LRU, LFU, FIFO, RANDOM, FARTHEST, PREDICTED = range(6)
NO_PREFETCH, TO_STAGING, TO_POOL = range(3)
LOAD, CPU, CHEAPER = range(3)
EACH, ALL = range(2)
# counters. ORDERED: objects that this visit computes on the device; ON_CPU: on the CPU. HITS_HERE, READY_HERE: of the
# ordered ones those that were there, and that were complete. LOGGED: transfers. STAMP: touches
STAMP, SEED, ORDERED, ON_CPU, LOGGED = range(5)
# order_i columns: what a visit computes on the device. WAIT: the place in the order whose end frees its room (NONE: at
# once, ISSUED: the transfer is in its queue)
OBJECT, TOKENS, CAUSE, WAIT = range(4)
ISSUED = -2
# causes, of an object in the order
HIT, LATE, MISSED = range(3)
# count_i columns, by layer and by step
NEEDED, HITS, LATES, MISSES, ON_HOST, PREFETCHES, USEFUL, LOADS, READS, LIGHT = range(10)
# seconds columns, by layer and by step. END: of the step (of layers: 0)
WAIT_MISS, WAIT_LATE, WAIT_CPU, COMPUTE, LINK_BUSY, SSD_BUSY, END = range(7)
# log_i columns: transfers to HBM in the order of their issue. log_f: issue, arrival (NaN: cancelled or not yet there)
LOG_OBJECT, LOG_VISIT, LOG_URGENCY, LOG_WAIT = range(4)


class Arrays(NamedTuple):
    """n objects, l layers, p pools and behind them staging and host memory, v visits, s steps."""

    object_i: I8  # [n, 20]
    object_f: F8  # [n, 3]
    pool_i: I8  # [p + 2, 4]
    layer_pool: I8  # [l]
    queue: I8  # [2 links, 3 urgencies, head and tail] as [6, 2]
    link_f: F8  # [2, 2]
    rules: I8  # [9]
    counters: I8  # [5]
    order_i: I8  # [most objects of a layer, 4]
    need_start: I8  # [v + 1]
    need_object: I8  # [needs]
    need_tokens: I8  # [needs]
    need_next: I8  # [needs], or [0] where no policy looks
    need_light: I8  # [needs] object to use where the need's own is not there (NONE: it must be), or [0]
    guess_start: I8  # [v + 1]
    guess_object: I8  # [guesses]
    dense_s: F8  # [s or 1, l]
    expert_s: F8  # [l or 1, t + 1]
    cpu_s: F8  # [l or 1, t + 1]
    step_s: F8  # [s or 1]
    sync_s: F8  # [1]
    layer_count: I8  # [l, 10]
    step_count: I8  # [s, 10]
    layer_s: F8  # [l, 7]
    step_out: F8  # [s, 7]
    log_i: I8  # [k, 4]; capacity 0 records nothing
    log_f: F8  # [k, 2]
