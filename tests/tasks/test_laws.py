"""What holds for every graph, or for every graph of a kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simtool.simulator.tasks.bounds import graph_bounds
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import RateChange, Resource, Task
from tests.tasks.graphs import amount, changes, graphs

quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(graphs(), changes)
def test_work_is_conserved_and_no_rate_exceeded(graph, found):
    if any(task.holds for task in graph.tasks):
        found = [change for change in found if change.resource != "sm"]
    timeline = simulate_tasks(graph, found, record=True)
    for resource in graph.resources:
        times, used = timeline.usage(resource.name)
        work = sum(task.work.get(resource.name, 0.0) for task in graph.tasks)
        assert np.sum(used[:-1] * np.diff(times)) == pytest.approx(work, rel=1e-8, abs=1e-9)
        highest = max([resource.rate, *(change.rate for change in found if change.resource == resource.name)])
        assert used.max() <= highest * (1 + 1e-9)
        assert used.min() >= -1e-9


@quick
@given(graphs(plain=True))
def test_lower_bound_simulated_upper_bound(graph):
    bounds, makespan = graph_bounds(graph), simulate_tasks(graph).makespan_s
    assert bounds.lower_s <= makespan * (1 + 1e-9)
    assert makespan <= bounds.serial_s * (1 + 1e-9)


@quick
@given(graphs())
def test_nothing_starts_before_its_cause_or_ends_before_it_could(graph):
    timeline = simulate_tasks(graph)
    last: dict[str, int] = {}
    for index, task in enumerate(graph.tasks):
        before = [*task.after, *([last[task.stream]] if task.stream in last else [])]
        assert all(timeline.end_s[b] <= timeline.start_s[index] for b in before)
        assert timeline.end_s[index] >= timeline.start_s[index] + (task.latency_s + task.shortest_s) * (1 - 1e-9)
        if task.stream:
            last[task.stream] = index


@quick
@given(graphs(plain=True), st.randoms(use_true_random=False))
def test_the_order_of_independent_tasks_does_not_matter(graph, random):
    free = tuple(replace(task, stream="", after=()) for task in graph.tasks)
    mixed = random.sample(free, len(free))
    one, other = (simulate_tasks(replace(graph, tasks=tuple(tasks))) for tasks in (free, mixed))
    assert np.sort(one.end_s) == pytest.approx(np.sort(other.end_s), rel=1e-9)


@quick
@given(graphs())
def test_graph_alone_and_beside_a_strange_one_take_the_same_time(graph):
    """What shares nothing with a graph changes nothing in it, to the last bit."""
    far = Task(name="far", work={"far": 0.7})
    both = replace(graph, tasks=(*graph.tasks, far), resources=(*graph.resources, Resource(name="far", rate=1.0)))
    assert simulate_tasks(both).end_s[:-1].tolist() == simulate_tasks(graph).end_s.tolist()


@quick
@given(st.lists(st.tuples(amount, st.floats(0.0, 2.0)), min_size=1, max_size=8), st.floats(1.0, 3.0))
def test_more_bandwidth_never_hurts_independent_flows_on_one_link(flows, more):
    def run(rate):
        tasks = tuple(Task(name="f", work={"link": units}, latency_s=latency) for units, latency in flows)
        return simulate_tasks(TaskGraph(resources=(Resource(name="link", rate=rate),), tasks=tasks)).end_s

    assert np.all(run(more) <= run(1.0) * (1 + 1e-9))


@quick
@given(st.lists(st.lists(amount, min_size=1, max_size=5), min_size=1, max_size=4), st.floats(1.0, 3.0))
def test_more_bandwidth_never_hurts_the_makespan_of_chains_on_one_link(chains, more):
    def run(rate):
        tasks = tuple(
            Task(name="f", stream=f"s{place}", work={"link": units})
            for place, chain in enumerate(chains)
            for units in chain
        )
        return simulate_tasks(TaskGraph(resources=(Resource(name="link", rate=rate),), tasks=tasks)).makespan_s

    assert run(more) <= run(1.0) * (1 + 1e-9)


@quick
@given(graphs(), changes)
def test_the_same_graph_gives_the_same_bytes(graph, found):
    if any(task.holds for task in graph.tasks):
        found = [change for change in found if change.resource != "sm"]
    one, other = (simulate_tasks(graph, found, record=record) for record in (False, True))
    assert one.end_s.tobytes() == other.end_s.tobytes()


def test_a_rate_that_changes_to_itself_changes_nothing():
    tasks = tuple(Task(name="f", work={"link": units}) for units in (0.3, 0.7, 1.1))
    graph = TaskGraph(resources=(Resource(name="link", rate=1.3),), tasks=tasks)
    same = [RateChange(at_s=0.1 * i, resource="link", rate=1.3) for i in range(10)]
    assert simulate_tasks(graph, same).end_s.tolist() == simulate_tasks(graph).end_s.tolist()


def test_an_anomaly_more_bandwidth_can_hurt_a_graph():
    """Graham's anomaly, of fair sharing: a faster `a` lets work into `b` sooner, where it delays the critical chain.

    With a at 1: t2 ends at 2, t0 and t3 share b until 4, t1 runs 4-5. With a at 2: t2 ends at 1, t0 and t3 share b
    until 5, t1 runs 5-5.5. The smallest that a search over small graphs found.
    """
    tasks = (
        Task(name="t0", work={"b": 3.0}),
        Task(name="t1", work={"a": 1.0}, after=(0,)),
        Task(name="t2", work={"a": 2.0}),
        Task(name="t3", work={"b": 2.0}, after=(2,)),
    )

    def makespan(a):
        resources = (Resource(name="a", rate=a), Resource(name="b", rate=1.0))
        return simulate_tasks(TaskGraph(resources=resources, tasks=tasks)).makespan_s

    assert makespan(1.0) == pytest.approx(5.0)
    assert makespan(2.0) == pytest.approx(5.5)
