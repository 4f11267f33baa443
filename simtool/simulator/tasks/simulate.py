"""Run a task graph: one call of the compiled loop. Bounds without running it are in bounds.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simtool.errors import InputError
from simtool.simulator.tasks.arrays import DONE, END, ENDED, MISSING, PHASE, SEGMENTS, START, Arrays
from simtool.simulator.tasks.building import make_arrays
from simtool.simulator.tasks.columns import MOST
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.handle import handle
from simtool.simulator.tasks.loop import run_graph
from simtool.simulator.tasks.task import RateChange
from simtool.simulator.tasks.timeline import Timeline

_SEGMENTS_A_TASK = 16  # changes of speed for which there is room at once


def simulate_tasks(graph: TaskGraph, changes: Sequence[RateChange] = (), *, record: bool = False) -> Timeline:
    """Start and end of every task, exact for rates that are constant between events.

    record: keep every change of speed, for `Timeline.usage`. Raises InputError for a graph that is none, and where
    tasks are left that can never end (a store that nobody frees, a resource that stays at rate 0).
    """
    known = graph.rates
    for change in changes:
        usable = change.resource in known and 0 <= change.rate <= MOST and 0 <= change.at_s <= MOST
        if not usable:
            raise InputError(change, "is no change of a resource of the graph", f"a name, and numbers up to {MOST:g}")
    arrays = make_arrays(graph, changes, _SEGMENTS_A_TASK * len(graph.tasks) if record else 0)
    run_graph(handle(arrays))
    changed = int(arrays.counters[SEGMENTS])
    if record and changed > len(arrays.segments):
        arrays = make_arrays(graph, changes, changed)
        run_graph(handle(arrays))
    _check_ended(graph, arrays)
    start_s, end_s = arrays.task_f[:, START].copy(), arrays.task_f[:, END].copy()
    return Timeline(graph=graph, start_s=start_s, end_s=end_s, segments=arrays.segments[:changed].copy())


def _check_ended(graph: TaskGraph, arrays: Arrays) -> None:
    """InputError that names a task which is left, and why."""
    if arrays.counters[DONE] == len(graph.tasks):
        return
    left = arrays.task_i[:, PHASE] != ENDED
    able = np.flatnonzero(left & (arrays.task_i[:, MISSING] == 0))
    if not len(able):
        name = graph.tasks[int(np.flatnonzero(left)[0])].name
        raise InputError(name, "waits for itself through other tasks", "streams order tasks as the graph lists them")
    stuck = graph.tasks[int(able[0])]
    needs = sorted({*stuck.work, *stuck.holds, *stuck.takes})
    hint = f"it uses {', '.join(needs)}" if needs else ""
    raise InputError(stuck.name, "never ends: what it needs is never free", hint)
