"""Pools: who is in them, who leaves for another. Nothing here knows a clock."""

from __future__ import annotations

from simtool.simulator.jit import jit
from simtool.simulator.offload.arrays import (
    BYTES,
    CAPACITY,
    COUNT,
    EVICT,
    FARTHEST,
    FIFO,
    FIRST,
    HOST,
    HOST_PLACE,
    IDLE,
    LAST,
    LFU,
    LOADED,
    LOCK,
    NEXT,
    NONE,
    PHASE,
    PLACE,
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


@jit
def fits(a: Arrays, pool: int, item: int) -> bool:
    """Whether the object has room without anybody leaving."""
    return bool(a.pool_i[pool, USED] + a.object_i[item, BYTES] <= a.pool_i[pool, CAPACITY])


@jit
def holds(a: Arrays, pool: int, item: int) -> bool:
    """Whether the pool is large enough for the object at all."""
    return bool(a.object_i[item, BYTES] <= a.pool_i[pool, CAPACITY])


@jit
def put(a: Arrays, pool: int, item: int, where: int, place: int) -> None:
    """Make the object a member. where, place: POOL and PLACE, or HOST and HOST_PLACE."""
    pool_i = a.pool_i
    a.object_i[item, where] = pool
    a.object_i[item, place] = pool_i[pool, COUNT]
    a.members[pool_i[pool, FIRST] + pool_i[pool, COUNT]] = item
    pool_i[pool, COUNT] += 1
    pool_i[pool, USED] += a.object_i[item, BYTES]


@jit
def take(a: Arrays, item: int, where: int, place: int) -> None:
    """The object is no member any more; the last one takes its place."""
    pool_i, object_i = a.pool_i, a.object_i
    pool = object_i[item, where]
    pool_i[pool, COUNT] -= 1
    pool_i[pool, USED] -= object_i[item, BYTES]
    moved = a.members[pool_i[pool, FIRST] + pool_i[pool, COUNT]]
    a.members[pool_i[pool, FIRST] + object_i[item, place]] = moved
    object_i[moved, place] = object_i[item, place]
    object_i[item, where] = NONE


@jit
def drop(a: Arrays, item: int) -> None:
    """The object leaves HBM; what is on its way is cancelled."""
    object_i = a.object_i
    if object_i[item, PHASE] != IDLE:
        if object_i[item, PHASE] == READING and object_i[item, HOST] != NONE:
            take(a, item, HOST, HOST_PLACE)
        leave(a, item)
    take(a, item, POOL, PLACE)


@jit
def random_key(a: Arrays) -> int:
    """The next of a linear congruential generator (Knuth's MMIX constants), 31 bits."""
    a.counters[SEED] = (a.counters[SEED] * 6364136223846793005 + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF
    return int(a.counters[SEED] >> 32)


@jit
def worth(a: Arrays, item: int, visit: int) -> int:
    """How much it is worth to keep the object: the least leaves, of equal ones the least recently touched."""
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
    return -(1 << 40) if rule == PREDICTED else 0


@jit
def victim(a: Arrays, pool: int, visit: int, until: int) -> int:
    """Who leaves the pool: no object that this visit needs, and none predicted for the visits up to `until`."""
    object_i, first = a.object_i, a.pool_i[pool, FIRST]
    found, least = NONE, 0
    for i in range(first, first + a.pool_i[pool, COUNT]):
        item = a.members[i]
        if object_i[item, LOCK] == visit or visit <= object_i[item, WANTED] <= until:
            continue
        key = worth(a, item, visit)
        if found == NONE or key < least or (key == least and object_i[item, LAST] < object_i[found, LAST]):
            found, least = item, key
    return found


@jit
def first_locked(a: Arrays, pool: int, visit: int) -> int:
    """The object that this visit needs, that it touched first, and that still has its place in the pool."""
    object_i, first = a.object_i, a.pool_i[pool, FIRST]
    found = NONE
    for i in range(first, first + a.pool_i[pool, COUNT]):
        item = a.members[i]
        if object_i[item, LOCK] == visit and (found == NONE or object_i[item, LAST] < object_i[found, LAST]):
            found = item
    return found


@jit
def host_room(a: Arrays, item: int, visit: int) -> bool:
    """Room in host memory for an object from the SSD; False where only objects on their way could leave."""
    object_i, host = a.object_i, a.pool_i.shape[0] - 1
    if not holds(a, host, item):
        return False
    while not fits(a, host, item):
        first, found, least = a.pool_i[host, FIRST], NONE, 0
        for i in range(first, first + a.pool_i[host, COUNT]):
            other = a.members[i]
            if object_i[other, PHASE] != IDLE:
                continue
            key = worth(a, other, visit)
            if found == NONE or key < least or (key == least and object_i[other, LAST] < object_i[found, LAST]):
                found, least = other, key
        if found == NONE:
            return False
        take(a, found, HOST, HOST_PLACE)
    return True
