"""A task graph's timeline as Chrome trace JSON, for Perfetto: streams as threads, resources as counters.

The critical path stands once more as a thread of its own. Times are microseconds; families are categories.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simtool.files import output_file
from simtool.simulator.tasks.lanes import lanes_of
from simtool.simulator.tasks.timeline import Timeline

_MOST = 200_000  # events of a kind; Perfetto stays quick
_US = 1e6


def write_step_trace(timeline: Timeline, path: Path) -> None:
    """Write `path`, whole or not at all. Counters need a timeline that was recorded."""
    tasks = len(timeline.graph.tasks)
    about = {"tasks": tasks, "tasks_shown": min(tasks, _MOST), "makespan_s": timeline.makespan_s}
    with output_file(path) as building, building.open("w", encoding="utf-8") as out:
        out.write('{"displayTimeUnit":"ns","otherData":' + json.dumps(about) + ',"traceEvents":[\n')
        out.write(",\n".join(json.dumps(event, ensure_ascii=False) for event in step_events(timeline)))
        out.write("\n]}\n")


def step_events(timeline: Timeline) -> Iterator[dict[str, object]]:
    """Trace events. Process 0: streams, and the critical path as thread 0. Process 1: resources."""
    lanes, lane = lanes_of(timeline)
    for pid, name in enumerate(("streams", "resources")):
        yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}
    for tid, name in enumerate(["critical path", *lanes]):
        yield {"ph": "M", "pid": 0, "tid": tid, "name": "thread_name", "args": {"name": name}}
        yield {"ph": "M", "pid": 0, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}
    critical = timeline.critical_path()
    on_path = set(critical)
    for task in range(min(len(timeline.graph.tasks), _MOST)):
        yield _slice(timeline, task, int(lane[task]) + 1, task in on_path)
    for task in critical[:_MOST]:
        yield _slice(timeline, task, 0, True)
    yield from _counters(timeline)


def _slice(timeline: Timeline, task: int, tid: int, critical: bool) -> dict[str, object]:
    one = timeline.graph.tasks[task]
    start_us, end_us = float(timeline.start_s[task]) * _US, float(timeline.end_s[task]) * _US
    args = {"task": task, "critical": critical, "work": dict(one.work), "latency_s": one.latency_s}
    shared = {"ph": "X", "pid": 0, "tid": tid, "name": one.name, "cat": one.family or "task"}
    return {**shared, "ts": round(start_us, 6), "dur": round(end_us - start_us, 6), "args": args}


def _counters(timeline: Timeline) -> Iterator[dict[str, object]]:
    if not len(timeline.segments):
        return
    for resource in timeline.graph.resources:
        times, used = timeline.usage(resource.name)
        stay = np.abs(np.diff(used, prepend=-1.0)) > 1e-9 * max(resource.rate, 1e-60)
        for at, units in zip(times[stay][:_MOST].tolist(), used[stay][:_MOST].tolist(), strict=True):
            shown = {"units/s": float(f"{max(units, 0.0):.9g}")}
            yield {"ph": "C", "pid": 1, "name": resource.name, "ts": round(at * _US, 6), "args": shown}
