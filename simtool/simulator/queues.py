"""Queues of one row: waiting requests (linked list, or pairing heap under priority) and running ones (linked list)."""

from __future__ import annotations

from simtool.simulator.jit import jit
from simtool.simulator.state import (
    ARRIVAL,
    BY_PRIORITY,
    CHILD,
    FINISH_HEAP,
    HEAD,
    HEAP,
    I8,
    ITER,
    NEXT,
    NEXT_RUN,
    NONE,
    PENDING,
    PREV_RUN,
    PRIORITY,
    RUN_TAIL,
    RUNNING,
    TAIL,
    WAITING,
    State,
)


@jit
def push_arrival(s: State, row: int, req: int) -> None:
    """Put a request, whose arrival is not before the last one's, at the end of the row's arrivals."""
    tail = s.row_i[row, TAIL]
    s.req_i[req, NEXT] = NONE
    if s.row_i[row, PENDING] == NONE:
        s.row_i[row, PENDING] = req
    if tail == NONE:
        s.row_i[row, HEAD] = req
    else:
        s.req_i[tail, NEXT] = req
    s.row_i[row, TAIL] = req


@jit
def heap_before(s: State, a: int, b: int) -> bool:
    """Whether a goes first: smaller priority value, then earlier index (arrival order)."""
    pa, pb = s.req_i[a, PRIORITY], s.req_i[b, PRIORITY]
    return bool(pa < pb or (pa == pb and a < b))


@jit
def heap_meld(s: State, a: int, b: int) -> int:
    """Join two pairing heaps; CHILD and NEXT hold the tree."""
    if a == NONE:
        return b
    if b == NONE:
        return a
    if heap_before(s, b, a):
        a, b = b, a
    s.req_i[b, NEXT] = s.req_i[a, CHILD]
    s.req_i[a, CHILD] = b
    return a


@jit
def heap_pop(s: State, row: int) -> None:
    """Remove the root: meld its children in pairs, then right to left."""
    child = s.req_i[s.row_i[row, HEAP], CHILD]
    stack = NONE
    while child != NONE:
        first, second = child, s.req_i[child, NEXT]
        child = s.req_i[second, NEXT] if second != NONE else NONE
        s.req_i[first, NEXT] = NONE
        if second != NONE:
            s.req_i[second, NEXT] = NONE
        pair = heap_meld(s, first, second)
        s.req_i[pair, NEXT] = stack
        stack = pair
    root = NONE
    while stack != NONE:
        following = s.req_i[stack, NEXT]
        s.req_i[stack, NEXT] = NONE
        root = heap_meld(s, root, stack)
        stack = following
    s.row_i[row, HEAP] = root


@jit
def ingest(s: State, group: int, row: int, now: float) -> None:
    """Arrivals up to `now` are waiting from here on."""
    req = s.row_i[row, PENDING]
    while req != NONE and s.req_f[req, ARRIVAL] <= now:
        following = s.req_i[req, NEXT]
        s.row_i[row, WAITING] += 1
        if s.config[group, BY_PRIORITY] == 1:
            s.req_i[req, NEXT] = NONE
            s.req_i[req, CHILD] = NONE
            s.row_i[row, HEAP] = heap_meld(s, s.row_i[row, HEAP], req)
            s.row_i[row, HEAD] = following
            if following == NONE:
                s.row_i[row, TAIL] = NONE
        req = following
    s.row_i[row, PENDING] = req


@jit
def waiting_front(s: State, group: int, row: int) -> int:
    """The request that is admitted next."""
    return int(s.row_i[row, HEAP] if s.config[group, BY_PRIORITY] == 1 else s.row_i[row, HEAD])


@jit
def waiting_pop(s: State, group: int, row: int) -> None:
    """Drop the front."""
    s.row_i[row, WAITING] -= 1
    if s.config[group, BY_PRIORITY] == 1:
        heap_pop(s, row)
        return
    req = s.row_i[row, HEAD]
    s.row_i[row, HEAD] = s.req_i[req, NEXT]
    if s.req_i[req, NEXT] == NONE:
        s.row_i[row, TAIL] = NONE


@jit
def waiting_prepend(s: State, group: int, row: int, req: int) -> None:
    """A preempted request goes back to the front (or to its place by priority)."""
    s.row_i[row, WAITING] += 1
    if s.config[group, BY_PRIORITY] == 1:
        s.req_i[req, NEXT] = NONE
        s.req_i[req, CHILD] = NONE
        s.row_i[row, HEAP] = heap_meld(s, s.row_i[row, HEAP], req)
        return
    s.req_i[req, NEXT] = s.row_i[row, HEAD]
    s.row_i[row, HEAD] = req
    if s.row_i[row, TAIL] == NONE:
        s.row_i[row, TAIL] = req


@jit
def running_append(s: State, row: int, req: int) -> None:
    """The request is admitted."""
    tail = s.row_i[row, RUN_TAIL]
    s.req_i[req, PREV_RUN] = tail
    s.req_i[req, NEXT_RUN] = NONE
    if tail != NONE:
        s.req_i[tail, NEXT_RUN] = req
    s.row_i[row, RUN_TAIL] = req
    s.row_i[row, RUNNING] += 1


@jit
def running_remove(s: State, row: int, req: int) -> None:
    """The request has finished or is preempted."""
    before, after = s.req_i[req, PREV_RUN], s.req_i[req, NEXT_RUN]
    if before != NONE:
        s.req_i[before, NEXT_RUN] = after
    if after != NONE:
        s.req_i[after, PREV_RUN] = before
    else:
        s.row_i[row, RUN_TAIL] = before
    s.row_i[row, RUNNING] -= 1


@jit
def sift_up(heap: I8, i: int, key: int) -> None:
    """Let `key` rise from position i."""
    while i > 0 and heap[(i - 1) >> 1] > key:
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
    heap[i] = key


@jit
def finish_push(s: State, row: int, lane: int, finish_iter: int, req: int) -> None:
    """Remember in which decode iteration of the lane the request ends (binary heap; an entry for each that decodes)."""
    i = s.lane_i[row, lane, FINISH_HEAP]
    s.lane_i[row, lane, FINISH_HEAP] = i + 1
    sift_up(s.finish_heap[row, lane], i, (finish_iter << 32) | req)


@jit
def finish_drop(s: State, row: int, lane: int, i: int) -> None:
    """Drop the entry at position i: the last one takes its place and sinks or rises from there."""
    heap = s.finish_heap[row, lane]
    size = s.lane_i[row, lane, FINISH_HEAP] - 1
    s.lane_i[row, lane, FINISH_HEAP] = size
    if i == size:
        return
    key = heap[size]
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i = child
    sift_up(heap, i, key)


@jit
def finish_forget(s: State, row: int, lane: int, req: int) -> None:
    """The request is preempted: it may come back in any lane, to end in any iteration, this one too."""
    for i in range(s.lane_i[row, lane, FINISH_HEAP]):
        if s.finish_heap[row, lane, i] & 0xFFFFFFFF == req:
            finish_drop(s, row, lane, i)
            return


@jit
def next_finish(s: State, row: int, lane: int) -> int:
    """Iterations of the lane until the first of its decoding requests ends."""
    if s.lane_i[row, lane, FINISH_HEAP] == 0:
        return 1 << 40
    return int((s.finish_heap[row, lane, 0] >> 32) - s.lane_i[row, lane, ITER])
