"""The replica's loop: `advance(state, group, until)` runs events and says why it stopped.

An event is the start of a step in a lane (admit, schedule every row, price, decide how many iterations it repeats) or
its end (apply). A lane's step in flight can be cut by an arrival: it then ends with the iteration that is running.
"""

from __future__ import annotations

from simtool.simulator.flight import commit, cut, fly
from simtool.simulator.jit import jit, jit_entry
from simtool.simulator.queues import ingest
from simtool.simulator.scheduler import schedule
from simtool.simulator.state import (
    ARRIVAL,
    BLOCKED,
    CHUNK_REQ,
    CHUNKS,
    DECODES,
    HOST_HIDDEN,
    INF,
    LANES,
    LAST_START,
    LEAP,
    LEAP_END,
    NONE,
    PARTIAL,
    PENDING,
    ROW0,
    ROWS,
    SCHEDULED,
    WAITING,
    State,
)

# why advance stopped
HORIZON, IDLE, STALLED, RECORDS_FULL = range(4)


@jit
def lane_start(s: State, group: int, lane: int) -> float:
    """Earliest start of the lane's next step: none is in flight, stage 0 is free, and there is work."""
    if s.flight_i[group, lane, LEAP] > 0:
        return INF
    ready = max(s.lane_ready[group, lane], s.stage_free[group, 0])
    start = INF
    for row in range(s.group_i[group, ROW0], s.group_i[group, ROW0] + s.group_i[group, ROWS]):
        if s.lane_i[row, lane, DECODES] > 0 or s.lane_i[row, lane, PARTIAL] != NONE:
            return float(ready)
        if s.row_i[row, WAITING] > 0:
            if s.flight_i[group, lane, BLOCKED] == 0:
                return float(ready)
        elif s.row_i[row, PENDING] != NONE:
            start = min(start, max(ready, s.req_f[s.row_i[row, PENDING], ARRIVAL]))
    return float(start)


@jit
def next_start(s: State, group: int) -> tuple[float, int]:
    """When the next step can start, and in which lane."""
    best, chosen = INF, 0
    for lane in range(s.config[group, LANES]):
        start = lane_start(s, group, lane)
        if start < best:
            best, chosen = start, lane
    return best, chosen


@jit
def next_end(s: State, group: int) -> tuple[float, int]:
    """When the first step in flight ends, and in which lane."""
    best, chosen = INF, 0
    for lane in range(s.config[group, LANES]):
        if s.flight_i[group, lane, LEAP] > 0 and s.flight_f[group, lane, LEAP_END] < best:
            best, chosen = s.flight_f[group, lane, LEAP_END], lane
    return best, chosen


@jit_entry
def next_event(s: State, group: int) -> float:
    """When the replica changes next, if nobody arrives (INF: never)."""
    return min(next_start(s, group)[0], next_end(s, group)[0])


@jit
def stuck(s: State, group: int) -> bool:
    """Whether requests wait although nothing runs and nothing will arrive: a bug, never hung."""
    for row in range(s.group_i[group, ROW0], s.group_i[group, ROW0] + s.group_i[group, ROWS]):
        if s.row_i[row, WAITING] > 0:
            return True
    return False


@jit
def seen_until(s: State, group: int, row: int, lane: int, start_s: float) -> float:
    """Arrivals up to when are known to a step that starts at start_s.

    Asynchronous scheduling (vLLM's `--async-scheduling`) puts step k+1 together when step k starts, so that the host's
    work is hidden: who arrives during step k joins step k+2. An engine with nothing more to run takes him at once.
    """
    busy = s.lane_i[row, lane, DECODES] > 0 or s.lane_i[row, lane, PARTIAL] != NONE
    ahead = s.config[group, HOST_HIDDEN] == 1 and s.config[group, LANES] == 1
    if busy and ahead and s.lane_ready[group, lane] == start_s:
        return float(s.flight_f[group, lane, LAST_START])
    return start_s


@jit
def start_step(s: State, group: int, lane: int, start_s: float, horizon_s: float) -> None:
    """Admit and schedule at start_s; a lane that finds nothing to run is blocked until a step ends."""
    work = False
    for row in range(s.group_i[group, ROW0], s.group_i[group, ROW0] + s.group_i[group, ROWS]):
        ingest(s, group, row, seen_until(s, group, row, lane, start_s))
        work = schedule(s, group, row, lane) or work
        for i in range(s.lane_i[row, lane, CHUNKS]):
            req = s.chunks[row, lane, i, CHUNK_REQ]
            if s.req_f[req, SCHEDULED] < 0:
                s.req_f[req, SCHEDULED] = start_s
    if work:
        fly(s, group, lane, start_s, horizon_s)
    else:
        s.flight_i[group, lane, BLOCKED] = 1


@jit_entry
def run_event(s: State, group: int, horizon_s: float) -> int:
    """Run the next event, a step's end before another's start; returns how many requests it finished."""
    end_s, ending = next_end(s, group)
    start_s, starting = next_start(s, group)
    if end_s <= start_s:
        return commit(s, group, ending)
    start_step(s, group, starting, start_s, horizon_s)
    return 0


@jit_entry
def advance(s: State, group: int, until_s: float) -> int:
    """Start every step that can start before until_s and end every one that ends by then."""
    while True:
        start_s = next_start(s, group)[0]
        end_s = next_end(s, group)[0]
        if start_s >= INF and end_s >= INF:
            return STALLED if stuck(s, group) else IDLE
        if start_s >= until_s and end_s > until_s:
            return HORIZON
        if s.records.shape[0] > 0 and s.record_n[0] >= s.records.shape[0]:
            return RECORDS_FULL
        run_event(s, group, until_s)


@jit
def advance_all(s: State, until_s: float) -> int:
    """Bring every group up to until_s; the first unusual status wins."""
    for group in range(s.group_i.shape[0]):
        status = advance(s, group, until_s)
        if status in (STALLED, RECORDS_FULL):
            return status
    return HORIZON


@jit_entry
def interrupt(s: State, group: int, now_s: float) -> None:
    """A request has arrived at now_s: leaps end with their running iteration."""
    for lane in range(s.config[group, LANES]):
        if s.flight_i[group, lane, LEAP] > 1:
            cut(s, group, lane, now_s)
