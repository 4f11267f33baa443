"""A visit's decisions: what is there, what is loaded, what the CPU computes, who leaves.

There is no clock, so that an executor decides alike. An object is there when it has its place in HBM, complete or on
its way: what is hit does not hang on how fast anything is.
"""

from __future__ import annotations

from simtool.simulator.jit import jit
from simtool.simulator.offload.arrays import (
    ADMIT,
    CAPACITY,
    CAUSE,
    CPU,
    F8,
    FRESH,
    HIT,
    HITS,
    HOST,
    IDLE,
    LATE,
    LATES,
    LAYER,
    LIGHT,
    LOAD,
    LOAD_S,
    LOADED,
    LOCK,
    MISS,
    MISSED,
    MISSES,
    NEEDED,
    NEXT,
    NONE,
    OBJECT,
    ON_CPU,
    ON_HOST,
    ORDERED,
    PHASE,
    POOL,
    RANK,
    STAMP,
    TOKENS,
    UNBOUNDED,
    USEFUL,
    USES,
    WAIT,
    Arrays,
)
from simtool.simulator.offload.pools import drop, first_locked, fits, holds, put, renew, take, victim


@jit
def seconds_of(table_s: F8, layer: int, tokens: int) -> float:
    """Seconds of an object with that many tokens: of the table, or further on the line of its last two columns."""
    row, last = min(layer, table_s.shape[0] - 1), table_s.shape[1] - 1
    if tokens <= last or last == 0:
        return float(table_s[row, min(tokens, last)])
    return float(table_s[row, last] + (tokens - last) * (table_s[row, last] - table_s[row, last - 1]))


@jit
def staging(a: Arrays) -> int:
    """The pool of objects on their way."""
    return int(a.pool_i.shape[0] - 2)


@jit
def count(a: Arrays, step: int, layer: int, column: int) -> None:
    """One more, of the layer and of the step."""
    a.layer_count[layer, column] += 1
    a.step_count[step, column] += 1


@jit
def touch(a: Arrays, need: int) -> None:
    """The need's object is used."""
    item, counters = a.need_object[need], a.counters
    counters[STAMP] += 1
    renew(a, item, POOL)
    if a.pool_i[a.pool_i.shape[0] - 1, CAPACITY] < UNBOUNDED:
        renew(a, item, HOST)
    a.object_i[item, USES] += 1
    a.object_i[item, FRESH] = 0
    if a.need_next.shape[0] > 0:
        a.object_i[item, NEXT] = a.need_next[need]


@jit
def line_up(a: Arrays, need: int, cause: int, wait: int) -> None:
    """The need's object is computed on the device after those before it in the order."""
    rank, item = a.counters[ORDERED], a.need_object[need]
    a.order_i[rank, OBJECT], a.order_i[rank, TOKENS] = item, a.need_tokens[need]
    a.order_i[rank, CAUSE], a.order_i[rank, WAIT] = cause, wait
    a.object_i[item, RANK] = rank
    a.counters[ORDERED] += 1


@jit
def settle(a: Arrays, item: int, visit: int) -> None:
    """A staged object that is used moves into its layer's pool, where somebody can leave for it."""
    pool = a.layer_pool[a.object_i[item, LAYER]]
    if not holds(a, pool, item):
        return
    while not fits(a, pool, item):
        other = victim(a, pool, visit, visit - 1)
        if other == NONE:
            return
        drop(a, other)
    take(a, item, POOL)
    put(a, pool, item, POOL)


@jit
def make_room(a: Arrays, pool: int, item: int, visit: int) -> int:
    """Room for an object that is loaded on demand: the place in the order after which it is free (NONE: at once).

    Where this visit needs all that the pool holds, the object that computes first goes first.
    """
    wait = NONE
    while not fits(a, pool, item):
        other = victim(a, pool, visit, visit - 1)
        if other == NONE:
            other = first_locked(a, pool, visit)
            wait = max(wait, a.object_i[other, RANK])
            take(a, other, POOL)
        else:
            drop(a, other)
    return wait


@jit
def on_cpu(a: Arrays, need: int, layer: int) -> bool:
    """Whether a missing object is computed where it is: as the rule says, or if that takes less than to load it."""
    rule, item, tokens = a.rules[MISS], a.need_object[need], a.need_tokens[need]
    if rule == LOAD or a.object_i[item, HOST] == NONE:
        return False
    if rule == CPU:
        return True
    copied_s = a.object_f[item, LOAD_S] + seconds_of(a.expert_s, layer, tokens)
    return bool(seconds_of(a.cpu_s, layer, tokens) < copied_s)


@jit
def load_missing(a: Arrays, need: int, visit: int, layer: int) -> None:
    """A missing object gets its place, in the layer's pool if it may stay there, else in staging."""
    item = a.need_object[need]
    pool = a.layer_pool[layer]
    if a.rules[ADMIT] == 0 or not holds(a, pool, item):
        pool = staging(a)
    wait = make_room(a, pool, item, visit)
    put(a, pool, item, POOL)
    touch(a, need)
    a.object_i[item, LOADED] = a.counters[STAMP]
    line_up(a, need, MISSED, wait)


@jit
def hit(a: Arrays, first: int, last: int, step: int, layer: int) -> None:
    """Line up what is there: complete objects first, then those on their way."""
    object_i = a.object_i
    for need in range(first, last):
        item = a.need_object[need]
        if object_i[item, POOL] != NONE:
            count(a, step, layer, HITS)
            if object_i[item, FRESH] == 1:
                count(a, step, layer, USEFUL)
            touch(a, need)
            if object_i[item, PHASE] == IDLE:
                line_up(a, need, HIT, NONE)
    for need in range(first, last):
        item = a.need_object[need]
        if object_i[item, POOL] != NONE and object_i[item, PHASE] != IDLE:
            count(a, step, layer, LATES)
            line_up(a, need, LATE, NONE)


@jit
def miss(a: Arrays, need: int, visit: int, step: int, layer: int) -> None:
    """A missing object is loaded or goes to the CPU, whose list stands at the end of the order's rows."""
    count(a, step, layer, MISSES)
    if not on_cpu(a, need, layer):
        load_missing(a, need, visit, layer)
        return
    a.counters[ON_CPU] += 1
    row = a.order_i.shape[0] - a.counters[ON_CPU]
    a.order_i[row, OBJECT], a.order_i[row, TOKENS] = a.need_object[need], a.need_tokens[need]
    touch(a, need)
    count(a, step, layer, ON_HOST)


@jit
def lighten(a: Arrays, need: int, step: int, layer: int) -> None:
    """Where a light copy will do and the object is not there, the need is of the copy."""
    if a.need_light.shape[0] == 0 or a.need_light[need] == NONE:
        return
    if a.object_i[a.need_object[need], POOL] == NONE:
        a.need_object[need] = a.need_light[need]
        count(a, step, layer, LIGHT)


@jit
def decide(a: Arrays, step: int, layer: int) -> None:
    """Fill the order of this visit: what is there, then what is loaded, in ascending order; beside it the CPU's."""
    object_i, visit = a.object_i, step * a.layer_pool.shape[0] + layer
    first, last = a.need_start[visit], a.need_start[visit + 1]
    a.counters[ORDERED], a.counters[ON_CPU] = 0, 0
    for need in range(first, last):
        lighten(a, need, step, layer)
        item = a.need_object[need]
        object_i[item, LOCK], object_i[item, RANK] = visit, NONE
        count(a, step, layer, NEEDED)
    hit(a, first, last, step, layer)
    if a.rules[ADMIT] == 1:
        for need in range(first, last):  # not by rank, which is a matter of time
            if object_i[a.need_object[need], POOL] == staging(a):
                settle(a, a.need_object[need], visit)
    for need in range(first, last):
        if object_i[a.need_object[need], RANK] == NONE:
            miss(a, need, visit, step, layer)


@jit
def release(a: Arrays) -> None:
    """What was used from staging and moved nowhere leaves it."""
    for rank in range(a.counters[ORDERED]):
        item = a.order_i[rank, OBJECT]
        if a.object_i[item, POOL] == staging(a):
            take(a, item, POOL)
