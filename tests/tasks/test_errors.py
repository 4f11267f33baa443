"""Bad graphs get one error that names what is wrong; odd but good ones run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.simulator.tasks.bounds import graph_bounds
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import RateChange, Resource, Store, Task

LINK = Resource(name="link", rate=1.0)


def run(*tasks, resources=(LINK,), changes=(), **more):
    return simulate_tasks(TaskGraph(resources=resources, tasks=tasks, **more), changes)


STORE = (Store(name="slots", capacity=1.0),)
BAD = {
    "waits for itself": lambda: run(Task(name="a", after=(1,)), Task(name="b", after=(0,))),
    "waits for itself through": lambda: run(Task(name="a", after=(0,))),
    "waits for itself through other": lambda: run(Task(name="a", stream="s", after=(1,)), Task(name="b", stream="s")),
    "is no resource": lambda: run(Task(name="a", work={"nvlink": 1.0})),
    "is no store": lambda: run(Task(name="a", takes={"link": 1.0})),
    "link of task a must be a number": lambda: run(Task(name="a", work={"link": math.nan})),
    "link of task a must": lambda: run(Task(name="a", work={"link": -1.0})),
    "latency_s of task a": lambda: run(Task(name="a", latency_s=math.inf)),
    "shortest_s of task a": lambda: run(Task(name="a", shortest_s=-1e-9)),
    "tiles of task a": lambda: run(Task(name="a", tiles=-1)),
    "whole numbers": lambda: run(Task(name="a", tiles=1.5)),
    "must be numbers": lambda: run(Task(name="a", work={"link": "much"})),
    "rate or capacity of link": lambda: run(resources=(Resource(name="link", rate=math.inf),)),
    "needs more than the 1 of link": lambda: run(Task(name="a", holds={"link": 2.0})),
    "needs more than the 1 of slots": lambda: run(Task(name="a", takes={"slots": 2.0}), stores=STORE),
    "names of their own": lambda: run(resources=(LINK, LINK)),
    "names of their": lambda: run(stores=(Store(name="link", capacity=1.0),)),
    "the graph lacks": lambda: run(Task(name="a", after=(7,))),
    "interference of": lambda: run(interference={("a", "b"): 1.5}),
    "kinds that have names": lambda: run(interference={("", "b"): 0.5}),
    "is no change of a resource": lambda: run(changes=[RateChange(at_s=0.0, resource="far", rate=1.0)]),
    "is no change of": lambda: run(changes=[RateChange(at_s=math.nan, resource="link", rate=1.0)]),
    "is no change": lambda: run(changes=[RateChange(at_s=0.0, resource="link", rate=math.inf)]),
    "never ends": lambda: run(Task(name="a", work={"link": 1.0}), resources=(Resource(name="link", rate=0.0),)),
    "never ends: what": lambda: run(
        Task(name="a", takes={"slots": 1.0}), Task(name="b", takes={"slots": 1.0}), stores=STORE
    ),
}


@pytest.mark.parametrize("words", BAD)
def test_bad_graphs(words):
    with pytest.raises(InputError) as caught:
        BAD[words]()
    assert words in str(caught.value)


def test_bounds_refuse_a_cycle():
    with pytest.raises(InputError, match="waits for itself"):
        graph_bounds(TaskGraph(resources=(), tasks=(Task(name="a", after=(1,)), Task(name="b", after=(0,)))))


def test_work_behind_a_higher_priority_that_never_leaves_never_ends():
    change = [RateChange(at_s=1.0, resource="link", rate=0.0)]
    with pytest.raises(InputError, match="never ends"):
        run(Task(name="a", work={"link": 2.0}), changes=change)


def test_an_empty_graph():
    timeline = run()
    assert timeline.makespan_s == 0.0
    assert timeline.critical_path() == ()
    assert timeline.exposed_s("gemm") == 0.0
    bounds = graph_bounds(timeline.graph)
    assert (bounds.lower_s, bounds.serial_s) == (0.0, 0.0)
    assert run(resources=()).makespan_s == 0.0


def test_tasks_without_work_take_no_time_but_keep_their_order():
    tasks = [Task(name="a", stream="s", work={"link": 0.0}) for _ in range(3)]
    assert run(*tasks, Task(name="b", after=(2,), latency_s=0.5)).end_s.tolist() == [0.0, 0.0, 0.0, 0.5]


def test_a_task_that_only_holds_for_no_time_lets_the_next_one_through():
    hold = Task(name="h", holds={"link": 1.0})
    assert run(hold, hold, Task(name="w", work={"link": 1.0})).end_s == pytest.approx([0.0, 0.0, 1.0])


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6, 1e15])
def test_times_scale_with_the_work(scale):
    tasks = [Task(name="f", work={"link": units * scale}, latency_s=0.1 * scale) for units in (1.0, 2.0, 3.5)]
    one = run(*[Task(name="f", work={"link": units}, latency_s=0.1) for units in (1.0, 2.0, 3.5)])
    assert run(*tasks).end_s / scale == pytest.approx(one.end_s, rel=1e-9)


def test_small_beside_large():
    long = Task(name="long", work={"link": 1e6})
    short = [Task(name="short", stream="s", work={"hbm": 1e-12}) for _ in range(100)]
    timeline = run(long, *short, resources=(LINK, Resource(name="hbm", rate=1.0)))
    assert timeline.end_s[1:] == pytest.approx(1e-12 * np.arange(1, 101), rel=1e-9)
    assert timeline.end_s[0] == pytest.approx(1e6)


def test_units_below_any_meaning_do_not_hang():
    assert run(Task(name="a", work={"link": 1e-300})).makespan_s == 0.0
    tiny = run(Task(name="a", work={"link": 1e-59}), Task(name="b", work={"link": 1e59}))
    assert tiny.end_s == pytest.approx([2e-59, 1e59])


def test_many_that_end_at_once():
    same = [Task(name="f", work={"link": 1.0}) for _ in range(1000)]
    assert run(*same, Task(name="g", after=tuple(range(1000)), latency_s=1.0)).makespan_s == pytest.approx(1001.0)


def test_a_hundred_thousand_tasks():
    tasks = [Task(name="f", stream=f"s{i % 64}", work={f"r{i % 64}": 1.0}) for i in range(100_000)]
    timeline = run(*tasks, resources=tuple(Resource(name=f"r{i}", rate=1.0) for i in range(64)))
    assert timeline.makespan_s == pytest.approx(np.ceil(100_000 / 64))


def test_a_thousand_that_wait_for_one_slot():
    tasks = [Task(name="f", shortest_s=1.0, takes={"slots": 1.0}, gives={"slots": 1.0}) for _ in range(1000)]
    assert run(*tasks, stores=STORE).makespan_s == pytest.approx(1000.0)
