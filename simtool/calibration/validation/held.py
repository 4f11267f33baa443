"""HeldSchedule: a recorded schedule whose steps may take other times: when would each request have ended?

The order of steps and who is in each stay as recorded. A step starts when the step it followed has ended and the
requests that it admits have arrived, plus what stood between in the record (`lag`). A request of a closed loop or a
session is sent so long after the step whose end it followed as it was. With the recorded times all is as recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.execution import Execution

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
NONE = -1
_SAME_S = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Means over the counted requests that finished, seconds; and the run's duration."""

    e2e_s: float
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSchedule:
    """Columns of steps [k] in order of their start, and of requests [n].

    before: the step that each followed (NONE: the first). admits: for each step the requests that it runs first.
    anchor: the step after whose end a request was sent (NONE: by the clock). tail_s: from its last step to its finish.
    """

    measured_s: F8
    lag_s: F8
    before: I8
    admits: tuple[tuple[int, ...], ...]
    sent_s: F8
    anchor: I8
    anchor_s: F8
    last: I8
    tail_s: F8
    counted: NDArray[np.bool_]
    latency_s: float

    def spans(self, seconds: F8, lag_s: F8) -> Spans:
        """The run with other step times and lags."""
        ends, sent = [0.0] * len(seconds), self.sent_s.tolist()
        anchor, offset, before = self.anchor.tolist(), self.anchor_s.tolist(), self.before.tolist()
        for step, (lasts, lag) in enumerate(zip(seconds.tolist(), lag_s.tolist(), strict=True)):
            ready = ends[before[step]] if before[step] != NONE else -np.inf
            for request in self.admits[step]:
                if anchor[request] != NONE:
                    sent[request] = ends[anchor[request]] + offset[request]
                ready = max(ready, sent[request] + self.latency_s)
            ends[step] = (ready if np.isfinite(ready) else 0.0) + lag + lasts
        finish = np.asarray(ends)[self.last] + self.tail_s
        begun = np.asarray(sent)
        e2e = (finish - begun)[self.counted]
        return Spans(e2e_s=float(e2e.mean()), duration_s=float(finish[self.counted].max() - begun[self.counted].min()))


def hold(execution: Execution, latency_s: float) -> HeldSchedule:
    """The recorded schedule. latency_s: of a request outside the engine."""
    steps, result, schedule = execution.result.steps, execution.result, execution.schedule
    start, end = steps["start_s"], steps["end_s"]
    requests = len(result.sent_s)
    first, last = np.full(requests, len(start)), np.full(requests, NONE)
    np.minimum.at(first, schedule.request, schedule.step)
    np.maximum.at(last, schedule.request, schedule.step)
    ran = last != NONE
    admits: list[list[int]] = [[] for _ in start]
    for request in np.flatnonzero(ran).tolist():
        admits[first[request]].append(request)
    before = _before(steps["replica"], start, end)
    anchor = _anchors(execution, end) if _reactive(execution) else np.full(requests, NONE)
    ready = np.where(before != NONE, end[before], -np.inf)
    np.maximum.at(ready, first[ran], result.sent_s[ran] + latency_s)
    counted = ran & np.isfinite(result.finish_s)
    counted[: result.warmup_requests] = False
    return HeldSchedule(
        measured_s=end - start,
        lag_s=start - np.where(np.isfinite(ready), ready, 0.0),
        before=before,
        admits=tuple(map(tuple, admits)),
        sent_s=result.sent_s,
        anchor=anchor,
        anchor_s=np.where(anchor != NONE, result.sent_s - end[anchor], 0.0),
        last=last,
        tail_s=np.where(ran, result.finish_s - end[last], 0.0),
        counted=counted,
        latency_s=latency_s,
    )


def _reactive(execution: Execution) -> bool:
    workload = execution.workload
    return workload.max_concurrency > 0 or bool(len(workload.follows))


def _before(replica: F8, start: F8, end: F8) -> I8:
    """For each step the one of its replica that ended last before it started."""
    before = np.full(len(start), NONE)
    for group in np.unique(replica).tolist():
        rows = np.flatnonzero(replica == group)
        order = rows[np.argsort(end[rows], kind="stable")]
        place = np.searchsorted(end[order], start[rows] + _SAME_S, side="right") - 1
        found = np.where(place >= 0, order[np.maximum(place, 0)], NONE)
        before[rows] = np.where(found < rows, found, NONE)
    return before


def _anchors(execution: Execution, end: F8) -> I8:
    """For each request the step that ended last before it was sent (NONE: none had)."""
    order = np.argsort(end, kind="stable")
    place = np.searchsorted(end[order], execution.result.sent_s + _SAME_S, side="right") - 1
    anchor = np.where(place >= 0, order[np.maximum(place, 0)], NONE)
    if len(execution.workload.follows):  # first turns come by the clock
        anchor[execution.workload.follows < 0] = NONE
    return anchor
