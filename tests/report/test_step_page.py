"""The page and the trace of a task graph say what the timeline says."""

import json
import re

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.report.step_figure import MOST_SLABS, slabs, step_figure
from simtool.report.step_page import gain, step_page, write_step_page
from simtool.simulator.tasks.bounds import graph_bounds
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.lanes import lanes_of
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import Resource, Task
from simtool.step_trace import write_step_trace
from tests.report.browser import CHROMIUM, drawn, own_text


def layers(count, chunks=4):
    """A pipeline of GEMM and collective chunks, and a copy beside it without a stream."""
    tasks = []
    for layer in range(count):
        for chunk in range(chunks):
            after = (len(tasks) - 1,) if chunk == 0 and tasks else ()
            tasks.append(Task(name=f"gemm {layer}.{chunk}", stream="compute", family="gemm", after=after,
                              work={"sm": 132e-6, "hbm": 1.5e3}, latency_s=2e-6))  # fmt: skip
            tasks.append(Task(name=f"reduce {layer}.{chunk}", stream="comm", family="collective", weight=1.0,
                              after=(len(tasks) - 1,), work={"link": 450.0, "hbm": 900.0}, latency_s=3e-6))  # fmt: skip
        tasks.append(Task(name=f"prefetch {layer}", family="expert load", work={"pcie": 100.0, "hbm": 100.0}))
    rates = {"sm": 132.0, "hbm": 1e9, "link": 4.5e8, "pcie": 5e7}
    resources = tuple(Resource(name=name, rate=rate) for name, rate in rates.items())
    return simulate_tasks(TaskGraph(resources=resources, tasks=tuple(tasks)), record=True)


@pytest.fixture(scope="module")
def step():
    return layers(6)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_the_page_without_an_error(step, tmp_path):
    dom = drawn(step_page(step, "Two layers"), tmp_path)
    assert 'data-errors=""' in dom
    assert 'data-plots="1"' in dom
    assert len(re.findall(r'class="plot js-plotly-plot"', dom)) == 1
    assert "critical path" in dom


def test_the_page_fetches_nothing_and_stays_small_for_many_tasks():
    for count in (6, 600):
        own = own_text(step_page(layers(count)))
        assert len(own) < 1e6
        assert not re.search(r"""(?:src|href)=["'](?!data:)""", own)
        assert not re.search("https?:/", own)


def test_the_page_tells_bounds_and_exposed_seconds(step):
    page, bounds = step_page(step), graph_bounds(step.graph)
    assert bounds.lower_s <= step.makespan_s <= bounds.serial_s
    assert 0 < gain(step.makespan_s, bounds) < 1
    assert "T_lower" in page
    assert "exposed" in page


def test_text_of_a_graph_cannot_break_the_page(step):
    evil = "</script><script>alert(1)</script>"
    graph = TaskGraph(resources=(Resource(name=evil, rate=1.0),),
                      tasks=(Task(name=evil, stream=evil, family=evil, work={evil: 1.0}),))  # fmt: skip
    page = step_page(simulate_tasks(graph, record=True), evil)
    assert "<script>alert" not in page


@pytest.mark.parametrize("tasks", [(), (Task(name="a", work={"sm": 0.0}),), (Task(name="a", work={"sm": 1.0}),)])
def test_odd_graphs_have_a_page_and_a_trace(tasks, tmp_path):
    graph = TaskGraph(resources=(Resource(name="sm", rate=1.0),), tasks=tasks)
    for record in (False, True):
        timeline = simulate_tasks(graph, record=record)
        write_step_page(timeline, tmp_path / "step.html")
        write_step_trace(timeline, tmp_path / "step.json")
        assert json.loads((tmp_path / "step.json").read_text())["traceEvents"]


def test_slabs_cover_what_ran(step):
    many = layers(600)
    _, lane = lanes_of(many)
    start, end, _, _, count = slabs(many, np.flatnonzero(lane == 0), lane)
    assert len(start) <= MOST_SLABS
    assert count.sum() == np.count_nonzero(lane == 0)
    _, lane = lanes_of(step)
    mine = np.flatnonzero(lane == 0)
    start, end, _, first, _ = slabs(step, mine, lane)
    assert np.sum(end - start) == pytest.approx(np.sum(step.end_s[mine] - step.start_s[mine]))
    assert first.tolist() == mine.tolist()


def test_tasks_of_a_lane_do_not_overlap(step):
    _, lane = lanes_of(step)
    for place in range(lane.max() + 1):
        mine = np.flatnonzero(lane == place)
        mine = mine[np.argsort(step.start_s[mine])]
        assert np.all(step.end_s[mine[:-1]] <= step.start_s[mine[1:]])


def test_drawn_use_is_the_work_done(step):
    edges = np.linspace(0.0, step.makespan_s, 101)
    for resource in step.graph.resources:
        work = sum(task.work.get(resource.name, 0.0) for task in step.graph.tasks)
        assert np.sum(step.mean_usage(resource.name, edges) * np.diff(edges)) == pytest.approx(work)
    drawn_lines = step_figure(step).data
    assert len(drawn_lines) == 3 + 1 + 4
    # plotly would leave out pieces shorter than a pixel: all of a long step
    assert not any(line.line.simplify for line in drawn_lines[:4])


def test_the_trace_has_streams_counters_and_the_critical_path(step, tmp_path):
    write_step_trace(step, tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    own = [event for event in slices if event["tid"] > 0]
    path = [event for event in slices if event["tid"] == 0]
    assert len(own) == len(step.graph.tasks)
    assert [event["args"]["task"] for event in path] == list(step.critical_path())
    assert max(event["ts"] + event["dur"] for event in own) == pytest.approx(step.makespan_s * 1e6)
    assert {event["name"] for event in events if event["ph"] == "C"} == {"sm", "hbm", "link", "pcie"}


def test_nothing_is_left_where_the_trace_cannot_be_written(step, tmp_path):
    with pytest.raises(InputError):
        write_step_trace(step, tmp_path / "no" / "t.json")
    assert list(tmp_path.iterdir()) == []
