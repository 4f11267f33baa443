"""Pools: who is in them, who leaves for another. Nothing here knows a clock."""

from __future__ import annotations

from simtool.simulator.jit import jit
from simtool.simulator.offload.arrays import (
    BYTES,
    CAPACITY,
    EVICT,
    FARTHEST,
    FIFO,
    HOST,
    HOST_NEWER,
    IDLE,
    LFU,
    LOADED,
    LOCK,
    NEWER,
    NEWEST,
    NEXT,
    NONE,
    OLDEST,
    PHASE,
    POOL,
    PREDICTED,
    RANDOM,
    READING,
    SEED,
    USED,
    USES,
    WANTED,
    Arrays,
)
from simtool.simulator.offload.link import leave

LEAST = -(1 << 60)  # no object is worth less


@jit
def fits(a: Arrays, pool: int, item: int) -> bool:
    """Whether the object has room without anybody leaving."""
    return bool(a.pool_i[pool, USED] + a.object_i[item, BYTES] <= a.pool_i[pool, CAPACITY])


@jit
def holds(a: Arrays, pool: int, item: int) -> bool:
    """Whether the pool is large enough for the object at all."""
    return bool(a.object_i[item, BYTES] <= a.pool_i[pool, CAPACITY])


@jit
def put(a: Arrays, pool: int, item: int, where: int) -> None:
    """Make the object the newest member. where: POOL or HOST; its two links are the columns behind."""
    pool_i, object_i = a.pool_i, a.object_i
    newest = pool_i[pool, NEWEST]
    object_i[item, where] = pool
    object_i[item, where + 1], object_i[item, where + 2] = newest, NONE
    if newest == NONE:
        pool_i[pool, OLDEST] = item
    else:
        object_i[newest, where + 2] = item
    pool_i[pool, NEWEST] = item
    pool_i[pool, USED] += object_i[item, BYTES]


@jit
def take(a: Arrays, item: int, where: int) -> None:
    """The object is no member any more."""
    pool_i, object_i = a.pool_i, a.object_i
    pool, older, newer = object_i[item, where], object_i[item, where + 1], object_i[item, where + 2]
    if older == NONE:
        pool_i[pool, OLDEST] = newer
    else:
        object_i[older, where + 2] = newer
    if newer == NONE:
        pool_i[pool, NEWEST] = older
    else:
        object_i[newer, where + 1] = older
    object_i[item, where] = NONE
    pool_i[pool, USED] -= object_i[item, BYTES]


@jit
def renew(a: Arrays, item: int, where: int) -> None:
    """The object becomes the newest of its pool."""
    pool = a.object_i[item, where]
    if pool != NONE and a.pool_i[pool, NEWEST] != item:
        take(a, item, where)
        put(a, pool, item, where)


@jit
def drop(a: Arrays, item: int) -> None:
    """The object leaves HBM; what is on its way is cancelled."""
    object_i = a.object_i
    if object_i[item, PHASE] != IDLE:
        if object_i[item, PHASE] == READING and object_i[item, HOST] != NONE:
            take(a, item, HOST)
        leave(a, item)
    take(a, item, POOL)


@jit
def random_key(a: Arrays) -> int:
    """The next of a linear congruential generator (Knuth's MMIX constants), 31 bits."""
    a.counters[SEED] = (a.counters[SEED] * 6364136223846793005 + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF
    return int(a.counters[SEED] >> 32)


@jit
def worth(a: Arrays, item: int, visit: int) -> int:
    """How much it is worth to keep the object: who is worth least leaves, of equal ones the least recently used."""
    object_i, rule = a.object_i, a.rules[EVICT]
    if rule == LFU:
        return int(object_i[item, USES])
    if rule == FIFO:
        return int(object_i[item, LOADED])
    if rule == RANDOM:
        return random_key(a)
    if rule == FARTHEST:
        return -int(object_i[item, NEXT])
    if rule == PREDICTED and object_i[item, WANTED] >= visit:
        return visit - int(object_i[item, WANTED])
    return LEAST


@jit
def victim(a: Arrays, pool: int, visit: int, until: int) -> int:
    """Who leaves the pool: no object that this visit needs, and none predicted for the visits up to `until`."""
    object_i = a.object_i
    item, found, least = a.pool_i[pool, OLDEST], NONE, 0
    while item != NONE:
        if object_i[item, LOCK] != visit and not visit <= object_i[item, WANTED] <= until:
            key = worth(a, item, visit)
            if key == LEAST:
                return int(item)
            if found == NONE or key < least:
                found, least = item, key
        item = object_i[item, NEWER]
    return int(found)


@jit
def first_locked(a: Arrays, pool: int, visit: int) -> int:
    """The object that this visit needs, that it used first, and that still has its place in the pool."""
    item = a.pool_i[pool, OLDEST]
    while a.object_i[item, LOCK] != visit:
        item = a.object_i[item, NEWER]
    return int(item)


@jit
def host_room(a: Arrays, item: int, visit: int) -> bool:
    """Room in host memory for an object from the SSD; False where only objects on their way could leave.

    "random" is for HBM: here, where the candidates are a matter of time, it would take numbers that decisions need.
    """
    object_i, host = a.object_i, a.pool_i.shape[0] - 1
    if not holds(a, host, item):
        return False
    while not fits(a, host, item):
        other, found, least = a.pool_i[host, OLDEST], NONE, 0
        while other != NONE:
            if object_i[other, PHASE] == IDLE:
                key = LEAST if a.rules[EVICT] == RANDOM else worth(a, other, visit)
                if found == NONE or key < least:
                    found, least = other, key
                if key == LEAST:
                    break
            other = object_i[other, HOST_NEWER]
        if found == NONE:
            return False
        take(a, found, HOST)
    return True
