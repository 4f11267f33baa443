"""The prefetch hook: predicted objects of the visits ahead get their places, the nearest first."""

from __future__ import annotations

from simtool.simulator.jit import jit
from simtool.simulator.offload.arrays import (
    AHEAD,
    DEMOTE,
    DEMOTED,
    FRESH,
    HOST,
    IDLE,
    LAYER,
    LOADED,
    LOADS,
    LOCK,
    LOG,
    LOG_OBJECT,
    LOG_URGENCY,
    LOG_VISIT,
    LOG_WAIT,
    LOGGED,
    MOST,
    NONE,
    PHASE,
    POOL,
    PREFETCH,
    PREFETCHES,
    READS,
    STAMP,
    TO_STAGING,
    URGENCY,
    WANTED,
    WINDOW,
    WRAPS,
    Arrays,
)
from simtool.simulator.offload.decide import count, staging
from simtool.simulator.offload.link import hurry, send
from simtool.simulator.offload.pools import drop, fits, holds, host_room, put, victim


@jit
def log(a: Arrays, item: int, visit: int, urgency: int, wait: int, now_s: float) -> None:
    """Record a transfer to HBM, where there is room for records."""
    row = a.counters[LOGGED]
    a.counters[LOGGED] += 1
    if row < a.log_i.shape[0]:
        a.object_i[item, LOG] = row
        a.log_i[row, LOG_OBJECT], a.log_i[row, LOG_VISIT] = item, visit
        a.log_i[row, LOG_URGENCY], a.log_i[row, LOG_WAIT] = urgency, wait
        a.log_f[row, 0] = now_s


@jit
def dispatch(a: Arrays, item: int, visit: int, urgency: int, wait: int, now_s: float) -> None:
    """Put a transfer on its link; an object of the SSD gets a place in host memory where one is free."""
    layers = a.layer_pool.shape[0]
    step, layer = visit // layers, visit % layers
    log(a, item, visit, urgency, wait, now_s)
    count(a, step, layer, LOADS)
    from_ssd = a.object_i[item, HOST] == NONE
    if from_ssd:
        count(a, step, layer, READS)
        if host_room(a, item, visit):
            put(a, a.pool_i.shape[0] - 1, item, HOST)
    send(a, item, urgency, from_ssd)


@jit
def bring(a: Arrays, item: int, target: int, visit: int, now_s: float) -> bool:
    """Prefetch an object for the visit `target`; False where nobody in its pool can leave for it."""
    object_i = a.object_i
    pool = staging(a) if a.rules[PREFETCH] == TO_STAGING else a.layer_pool[object_i[item, LAYER]]
    if not holds(a, pool, item):
        return False
    while not fits(a, pool, item):
        other = victim(a, pool, visit, target)
        if other == NONE:
            return False
        drop(a, other)
    put(a, pool, item, POOL)
    a.counters[STAMP] += 1
    object_i[item, LOADED] = a.counters[STAMP]
    object_i[item, FRESH] = 1
    layers = a.layer_pool.shape[0]
    count(a, visit // layers, visit % layers, PREFETCHES)
    dispatch(a, item, visit, AHEAD, NONE, now_s)
    return True


@jit
def look_ahead(a: Arrays, visit: int, first: int, now_s: float) -> None:
    """Prefetch for the visits from `first` on, as far as the window reaches."""
    object_i, rules, layers = a.object_i, a.rules, a.layer_pool.shape[0]
    end = a.guess_start.shape[0] - 1
    if rules[WRAPS] == 0:
        end = min(end, (visit // layers + 1) * layers)
    for target in range(first, min(first + rules[WINDOW], end)):
        start, stop = a.guess_start[target], a.guess_start[target + 1]
        if rules[MOST] > 0:
            stop = min(stop, start + rules[MOST])
        for guess in range(start, stop):
            item = a.guess_object[guess]
            object_i[item, WANTED] = target
            if object_i[item, POOL] == NONE and not bring(a, item, target, visit, now_s):
                break


@jit
def demote(a: Arrays, visit: int) -> None:
    """What was predicted for this visit and is not needed is not wanted any more; if on its way, it goes last."""
    object_i = a.object_i
    for guess in range(a.guess_start[visit], a.guess_start[visit + 1]):
        item = a.guess_object[guess]
        if object_i[item, WANTED] == visit and object_i[item, LOCK] != visit:
            object_i[item, WANTED] = NONE
            if a.rules[DEMOTE] == 1 and object_i[item, PHASE] != IDLE and object_i[item, URGENCY] == AHEAD:
                hurry(a, item, DEMOTED)
