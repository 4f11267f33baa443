"""One visit's time: the dense part, the loads that the gate asks for, the objects as they arrive, the CPU beside."""

from __future__ import annotations

from simtool.simulator.jit import jit
from simtool.simulator.offload.arrays import (
    CAUSE,
    COMPUTE,
    DEMAND,
    EACH,
    IDLE,
    LATE,
    MISSED,
    NO_PREFETCH,
    OBJECT,
    ON_CPU,
    ORDER,
    ORDERED,
    PHASE,
    PREFETCH,
    TOKENS,
    WAIT,
    WAIT_CPU,
    WAIT_LATE,
    WAIT_MISS,
    Arrays,
)
from simtool.simulator.offload.decide import decide, release, seconds_of
from simtool.simulator.offload.link import arrival, hurry, run_links
from simtool.simulator.offload.prefetching import demote, dispatch, look_ahead


@jit
def spend(a: Arrays, step: int, layer: int, column: int, seconds: float) -> None:
    """Add seconds, to the layer's and to the step's."""
    a.layer_s[layer, column] += seconds
    a.step_out[step, column] += seconds


@jit
def issue(a: Arrays, rank: int, done: int, visit: int, now_s: float) -> int:
    """Send for missing objects from `rank` on, in order, whose room is free when `done` places are computed.

    The first place that is still to be sent for.
    """
    while rank < a.counters[ORDERED]:
        if a.order_i[rank, CAUSE] == MISSED:
            if a.order_i[rank, WAIT] >= done:
                return rank
            dispatch(a, a.order_i[rank, OBJECT], visit, DEMAND, a.order_i[rank, WAIT], now_s)
        elif a.object_i[a.order_i[rank, OBJECT], PHASE] != IDLE:
            hurry(a, a.order_i[rank, OBJECT], DEMAND)
        rank += 1
    return rank


@jit
def compute(a: Arrays, step: int, layer: int, now_s: float, sent: int) -> float:
    """Compute the order's objects as they arrive: the time at the end."""
    visit, each = step * a.layer_pool.shape[0] + layer, a.rules[ORDER] == EACH
    ready_s = 0.0  # of objects that are there and wait for the others
    for rank in range(a.counters[ORDERED]):
        if sent <= rank:  # its room is an object's that waits for the others: these are computed now
            now_s, ready_s = now_s + ready_s, 0.0
            run_links(a, now_s)
            sent = issue(a, sent, rank, visit, now_s)
        item = a.order_i[rank, OBJECT]
        there_s = arrival(a, item, now_s)
        column = WAIT_LATE if a.order_i[rank, CAUSE] == LATE else WAIT_MISS
        spend(a, step, layer, column, there_s - now_s)
        now_s = there_s
        seconds = seconds_of(a.expert_s, layer, a.order_i[rank, TOKENS])
        spend(a, step, layer, COMPUTE, seconds)
        if each:
            now_s += seconds
            if sent < a.counters[ORDERED]:
                run_links(a, now_s)
                sent = issue(a, sent, rank + 1, visit, now_s)
        else:
            ready_s += seconds
    return now_s + ready_s


@jit
def cpu_end(a: Arrays, layer: int, now_s: float) -> float:
    """When the CPU has computed its objects, one after the other, and the device knows."""
    if a.counters[ON_CPU] == 0:
        return now_s
    for i in range(a.counters[ON_CPU]):
        tokens = a.order_i[a.order_i.shape[0] - 1 - i, TOKENS]
        now_s += seconds_of(a.cpu_s, layer, tokens)
    return now_s


@jit
def run_visit(a: Arrays, step: int, layer: int, now_s: float) -> float:
    """A layer of a step from `now_s` on: its end."""
    visit, predicts = step * a.layer_pool.shape[0] + layer, a.rules[PREFETCH] != NO_PREFETCH
    dense_s = a.dense_s[min(step, a.dense_s.shape[0] - 1), layer]
    spend(a, step, layer, COMPUTE, dense_s)
    now_s += dense_s
    run_links(a, now_s)
    decide(a, step, layer)
    if predicts:
        demote(a, visit)
    sent = issue(a, 0, 0, visit, now_s)
    if predicts:
        look_ahead(a, visit, visit + 1, now_s)
    on_cpu_s = cpu_end(a, layer, now_s)
    end_s = compute(a, step, layer, now_s, sent)
    if a.counters[ON_CPU] > 0:
        spend(a, step, layer, WAIT_CPU, max(0.0, on_cpu_s - end_s) + a.sync_s[0])
        end_s = max(end_s, on_cpu_s) + a.sync_s[0]
    run_links(a, end_s)
    release(a)
    return end_s
