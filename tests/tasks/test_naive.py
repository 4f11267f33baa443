"""The engine agrees with a plain simulator that shares no code with it, on random small graphs.

Small ones: with fair sharing, which task ends first decides who shares with whom next, so that a change of 1e-13 in one
rate grows from event to event, as it does in billiards (docs/design.md).
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from simtool.simulator.tasks.simulate import simulate_tasks
from tests.tasks.graphs import changes, graphs
from tests.tasks.naive_tasks import NaiveTasks

slowly = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def agree(graph, found=()):
    timeline = simulate_tasks(graph, found)
    expected = np.array(NaiveTasks(graph, found).run())
    assert timeline.start_s == pytest.approx(expected[:, 0], rel=1e-9, abs=1e-9)
    assert timeline.end_s == pytest.approx(expected[:, 1], rel=1e-9, abs=1e-9)


@slowly
@given(graphs(plain=True))
def test_plain_graphs(graph):
    agree(graph)


@slowly
@given(graphs())
def test_graphs_with_everything(graph):
    agree(graph)


@slowly
@given(graphs(), changes)
def test_rates_that_change(graph, found):
    if any(task.holds for task in graph.tasks):
        found = [change for change in found if change.resource != "sm"]
    agree(graph, found)
