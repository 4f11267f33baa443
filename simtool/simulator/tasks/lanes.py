"""Where tasks are drawn: a lane a stream, and as many more as tasks without a stream need beside each other."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from simtool.simulator.tasks.timeline import Timeline


def lanes_of(timeline: Timeline) -> tuple[list[str], NDArray[np.int64]]:
    """(names of lanes, lane of each task [n]): streams in the order of the graph, then "no stream"."""
    tasks = timeline.graph.tasks
    places = {name: place for place, name in enumerate(dict.fromkeys(task.stream for task in tasks if task.stream))}
    lane = np.array([places.get(task.stream, -1) for task in tasks], np.int64)
    names = list(places)
    free: list[tuple[float, int]] = []  # (when, lane)
    loose = np.flatnonzero(lane < 0)
    for task in loose[np.argsort(timeline.start_s[loose], kind="stable")]:
        if free and free[0][0] <= timeline.start_s[task]:
            place = heapq.heappop(free)[1]
        else:
            place = len(names)
            names.append("no stream")
        lane[task] = place
        heapq.heappush(free, (float(timeline.end_s[task]), place))
    return names, lane
