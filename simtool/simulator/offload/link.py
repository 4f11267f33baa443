"""The two links: host memory to HBM, and SSD to host memory. Each serves one transfer at a time, the most urgent first.

A more urgent transfer preempts, and what it preempted goes on where it was. Links stand at CLOCK; `run_links` brings
them to the device's clock, and nothing is ever put in a queue at another time than that.
"""

from __future__ import annotations

import math

from simtool.simulator.jit import jit
from simtool.simulator.offload.arrays import (
    AFTER,
    BEFORE,
    BUSY,
    CLOCK,
    DEMOTED,
    IDLE,
    LEFT,
    LOAD_S,
    LOADING,
    LOG,
    NONE,
    PHASE,
    READ_S,
    READING,
    URGENCY,
    Arrays,
)


@jit
def enter(a: Arrays, item: int, phase: int, urgency: int) -> None:
    """Put the object at the end of its queue on the phase's link."""
    object_i, queue = a.object_i, a.queue
    row = (phase - 1) * 3 + urgency
    object_i[item, PHASE], object_i[item, URGENCY] = phase, urgency
    tail = queue[row, 1]
    object_i[item, BEFORE], object_i[item, AFTER] = tail, NONE
    if tail == NONE:
        queue[row, 0] = item
    else:
        object_i[tail, AFTER] = item
    queue[row, 1] = item


@jit
def leave(a: Arrays, item: int) -> None:
    """Take the object out of its queue; what it still has to move stays in LEFT."""
    object_i, queue = a.object_i, a.queue
    row = (object_i[item, PHASE] - 1) * 3 + object_i[item, URGENCY]
    before, after = object_i[item, BEFORE], object_i[item, AFTER]
    if before == NONE:
        queue[row, 0] = after
    else:
        object_i[before, AFTER] = after
    if after == NONE:
        queue[row, 1] = before
    else:
        object_i[after, BEFORE] = before
    object_i[item, PHASE] = IDLE


@jit
def hurry(a: Arrays, item: int, urgency: int) -> None:
    """Move the object to the queue of another urgency."""
    phase = a.object_i[item, PHASE]
    leave(a, item)
    enter(a, item, phase, urgency)


@jit
def send(a: Arrays, item: int, urgency: int, from_ssd: bool) -> None:
    """Start the object on its way to HBM, from the SSD where host memory lacks it."""
    a.object_f[item, LEFT] = a.object_f[item, READ_S] if from_ssd else a.object_f[item, LOAD_S]
    enter(a, item, READING if from_ssd else LOADING, urgency)


@jit
def served(a: Arrays, link: int) -> int:
    """The object that the link serves; NONE where it is idle."""
    for urgency in range(DEMOTED + 1):
        item = a.queue[link * 3 + urgency, 0]
        if item != NONE:
            return int(item)
    return NONE


@jit
def serve_until(a: Arrays, link: int, until_s: float) -> None:
    """Bring the link's clock forward; its transfer does not end before."""
    link_f = a.link_f
    item = served(a, link)
    passed = until_s - link_f[link, CLOCK]
    if passed <= 0.0:
        return
    if item != NONE:
        a.object_f[item, LEFT] = max(0.0, a.object_f[item, LEFT] - passed)
        link_f[link, BUSY] += passed
    link_f[link, CLOCK] = until_s


@jit
def next_end(a: Arrays, link: int) -> float:
    """When the link's transfer ends if nothing preempts it."""
    item = served(a, link)
    return math.inf if item == NONE else a.link_f[link, CLOCK] + a.object_f[item, LEFT]


@jit
def complete(a: Arrays, link: int, end_s: float) -> int:
    """End the link's transfer at `end_s`: it goes on to HBM, or is there. The other link is brought there too."""
    item = served(a, link)
    a.link_f[link, BUSY] += a.object_f[item, LEFT]
    a.link_f[link, CLOCK] = end_s
    serve_until(a, 1 - link, end_s)
    urgency = a.object_i[item, URGENCY]
    a.object_f[item, LEFT] = 0.0
    leave(a, item)
    if link == READING - 1:
        send(a, item, urgency, False)
    elif a.log_f.shape[0] > 0:
        a.log_f[a.object_i[item, LOG], 1] = end_s
    return item


@jit
def run_links(a: Arrays, until_s: float) -> None:
    """Serve both links up to `until_s`."""
    while True:
        load_s, read_s = next_end(a, 0), next_end(a, 1)
        if min(load_s, read_s) > until_s:
            break
        if read_s <= load_s:
            complete(a, 1, read_s)
        else:
            complete(a, 0, load_s)
    serve_until(a, 0, until_s)
    serve_until(a, 1, until_s)


@jit
def arrival(a: Arrays, item: int, now_s: float) -> float:
    """Serve the links until the object is in HBM: the time then, at least `now_s`."""
    while a.object_i[item, PHASE] != IDLE:
        load_s, read_s = next_end(a, 0), next_end(a, 1)
        now_s = max(now_s, min(load_s, read_s))
        if read_s <= load_s:
            complete(a, 1, read_s)
        else:
            complete(a, 0, load_s)
    return now_s
