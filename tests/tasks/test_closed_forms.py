"""Graphs whose times follow from a formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simtool.simulator.tasks.bounds import alone_s, graph_bounds
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import RateChange, Resource, Store, Task


def graph(tasks, rates=None, **more):
    resources = tuple(Resource(name=name, rate=rate) for name, rate in (rates or {"link": 1.0}).items())
    return TaskGraph(resources=resources, tasks=tuple(tasks), **more)


def ends(tasks, rates=None, changes=(), **more):
    return simulate_tasks(graph(tasks, rates, **more), changes).end_s


def flow(units, **more):
    return Task(name="f", work={"link": units}, **more)


def test_two_equal_flows_take_twice_as_long():
    assert ends([flow(3.0), flow(3.0)]) == pytest.approx([6.0, 6.0])


def test_a_flow_that_joins_late_shares_from_then_on():
    # alone until 1, then half each: 4 left take 8 with the other; that one's 2 end at 5, the first has 2 left
    assert ends([flow(5.0), flow(2.0, latency_s=1.0)]) == pytest.approx([7.0, 5.0])


def test_on_one_link_flows_get_equal_bytes():
    assert ends([flow(1.0), flow(3.0)]) == pytest.approx([2.0, 4.0])


def test_without_weights_all_are_slowed_by_the_same_factor_and_with_them_flows_get_equal_bytes():
    """The second flow's own limit is half of the link: 2/3 and 1/3 of it, or half each."""
    rates = {"link": 1.0, "slow": 0.5}

    def speeds(*weights):
        tasks = [flow(1.0, weight=weights[0]), Task(name="g", work={"link": 2.0, "slow": 2.0}, weight=weights[1])]
        segments = simulate_tasks(graph(tasks, rates), record=True).segments
        return [float(segments[(segments[:, 0] == i) & (segments[:, 1] == 0.0), 2][0]) for i in (0, 1)]

    assert speeds(0.0, 0.0) == pytest.approx([2 / 3, 1 / 3 / 2])
    assert speeds(1.0, 1 / 2) == pytest.approx([1 / 2, 1 / 2 / 2])


def test_priority_is_strict():
    assert ends([flow(2.0, priority=1), flow(3.0), flow(1.0, latency_s=1.0)]) == pytest.approx([6.0, 4.0, 3.0])


@pytest.mark.parametrize("chunks", [1, 2, 7])
def test_a_pipeline_of_chunks_is_one_chunk_longer_than_its_slower_half(chunks):
    first = [Task(name="gemm", stream="a", work={"sm": 4.0 / chunks}) for _ in range(chunks)]
    second = [Task(name="comm", stream="b", work={"link": 6.0 / chunks}, after=(i,)) for i in range(chunks)]
    assert ends([*first, *second], {"sm": 1.0, "link": 1.0})[-1] == pytest.approx(6.0 + 4.0 / chunks)


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_a_ring_all_reduce(ranks):
    size, rate, hop_s = 10.0, 4.0, 0.01
    tasks = []
    for step in range(2 * (ranks - 1)):
        for rank in range(ranks):
            after = ((step - 1) * ranks + (rank - 1) % ranks,) if step else ()
            work = {f"link{rank}": size / ranks}
            tasks.append(Task(name="send", stream=f"rank{rank}", work=work, latency_s=hop_s, after=after))
    expected = 2 * (ranks - 1) * (size / ranks / rate + hop_s)
    assert ends(tasks, {f"link{rank}": rate for rank in range(ranks)})[-1] == pytest.approx(expected)


def test_max_min_with_weights_on_three_links():
    """Bertsekas and Gallager 6.5.2: one flow crosses all links, others one or two; by hand."""
    paths = {"long": ("a", "b", "c"), "one": ("a",), "two": ("a", "b"), "three": ("c",)}
    tasks = [
        Task(name=name, work=dict.fromkeys(path, 1e6), weight=2.0 if name == "three" else 1.0)
        for name, path in paths.items()
    ]
    rates = {"a": 3e6, "b": 1e6, "c": 5e6}
    timeline = simulate_tasks(graph(tasks, rates), record=True)
    first = {tasks[int(task)].name: speed for task, since, speed in timeline.segments if since == 0.0}
    # b is full at 0.5 each; then a has 2 left for "one"; c has 4.5 left for "three"
    assert first == pytest.approx({"long": 0.5, "two": 0.5, "one": 2.0, "three": 4.5})


def test_weights_split_a_link():
    timeline = simulate_tasks(graph([flow(1.0, weight=1.0), flow(1.0, weight=3.0)]), record=True)
    first = {int(task): speed for task, since, speed in timeline.segments if since == 0.0}
    assert first == pytest.approx({0: 0.25, 1: 0.75})


@pytest.mark.parametrize(("tiles", "waves"), [(1, 1), (132, 1), (133, 2), (264, 2), (265, 3)])
def test_tiles_run_in_whole_waves(tiles, waves):
    """A tile takes one multiprocessor one second."""
    kernel = Task(name="gemm", work={"sm": float(tiles)}, tiles=tiles)
    assert ends([kernel], {"sm": 132.0}) == pytest.approx([waves])
    assert alone_s(graph([kernel], {"sm": 132.0}), kernel) == pytest.approx(waves)


def test_waves_also_hold_where_another_resource_would_be_slower_than_fractional_waves():
    kernel = Task(name="gemm", work={"sm": 133.0, "hbm": 1.2}, tiles=133)
    assert ends([kernel], {"sm": 132.0, "hbm": 1.0}) == pytest.approx([2.0])


def test_a_communication_kernel_keeps_its_multiprocessors():
    comm = Task(name="comm", work={"link": 1.0}, holds={"sm": 32.0})
    gemm = Task(name="gemm", work={"sm": 132.0})
    assert ends([comm, gemm], {"sm": 132.0, "link": 1.0}) == pytest.approx([1.0, 1.0 + 32 / 132])
    tiled = Task(name="gemm", work={"sm": 132.0}, tiles=132)
    # two waves' speed beside it for a second (half done), one wave's speed after
    assert ends([comm, tiled], {"sm": 132.0, "link": 1.0}) == pytest.approx([1.0, 1.5])


def test_what_is_held_is_waited_for():
    only = Task(name="spin", shortest_s=1.0, holds={"sm": 3.0})
    timeline = simulate_tasks(graph([only, only, only], {"sm": 6.0}))
    assert timeline.start_s == pytest.approx([0.0, 0.0, 1.0])
    assert timeline.end_s == pytest.approx([1.0, 1.0, 2.0])


def test_a_store_makes_tasks_wait_and_small_ones_pass():
    store = (Store(name="hbm", capacity=4.0),)

    def load(size, **more):
        return Task(name="load", takes={"hbm": size}, gives={"hbm": size}, shortest_s=1.0, **more)

    timeline = simulate_tasks(graph([load(3.0), load(3.0), load(1.0)], stores=store))
    assert timeline.start_s == pytest.approx([0.0, 1.0, 0.0])
    urgent = simulate_tasks(graph([load(3.0), load(3.0, priority=1), load(3.0)], stores=store))
    assert urgent.start_s == pytest.approx([0.0, 2.0, 1.0])


def test_a_slot_that_another_task_gives_back_lets_the_next_load_start():
    """Double buffering: load i waits for the use of load i - 2."""
    store = (Store(name="slots", capacity=2.0),)
    tasks = []
    for i in range(5):
        tasks.append(Task(name="load", stream="copy", work={"link": 1.0}, takes={"slots": 1.0}))
        tasks.append(Task(name="use", stream="sm", after=(2 * i,), shortest_s=3.0, gives={"slots": 1.0}))
    assert ends(tasks, stores=store)[-1] == pytest.approx(1.0 + 5 * 3.0)


def test_a_link_fails_and_comes_back():
    changes = [RateChange(at_s=1.0, resource="link", rate=0.0), RateChange(at_s=5.0, resource="link", rate=2.0)]
    assert ends([flow(3.0)], changes=changes) == pytest.approx([6.0])
    assert ends([flow(0.5)], changes=changes) == pytest.approx([0.5])
    assert ends([flow(1.0)], changes=[RateChange(at_s=0.0, resource="link", rate=4.0)]) == pytest.approx([0.25])


def test_of_changes_at_once_the_last_counts():
    changes = [RateChange(at_s=1.0, resource="link", rate=9.0), RateChange(at_s=1.0, resource="link", rate=0.5)]
    assert ends([flow(2.0)], changes=changes) == pytest.approx([3.0])


def test_interference_slows_one_side():
    tasks = [Task(name="g", work={"hbm": 0.5}, kind="gemm", shortest_s=1.0),
             Task(name="c", work={"hbm": 0.25}, kind="copy", shortest_s=1.0)]  # fmt: skip
    found = ends(tasks, {"hbm": 1.0}, interference={("gemm", "copy"): 0.8})
    assert found == pytest.approx([1.2, 1.0])


def test_a_measured_time_is_a_floor():
    assert ends([flow(1.0, shortest_s=3.0), flow(1.0, shortest_s=3.0)]) == pytest.approx([3.0, 3.0])
    assert ends([flow(2.0, shortest_s=3.0), flow(2.0, shortest_s=3.0)]) == pytest.approx([4.0, 4.0])


def test_parts_of_a_task_are_served_together():
    task = Task(name="k", work={"sm": 2.0, "hbm": 3.0})
    assert ends([task], {"sm": 1.0, "hbm": 1.0}) == pytest.approx([3.0])


def test_bounds():
    tasks = [flow(1.0, latency_s=0.5), flow(2.0, after=(0,)), flow(4.0)]
    bounds = graph_bounds(graph(tasks))
    assert (bounds.path_s, bounds.busiest_s, bounds.serial_s) == pytest.approx((4.0, 7.0, 7.5))
    assert bounds.lower_s == 7.0
    assert graph_bounds(graph([flow(1.0)], {"link": 0.0})).lower_s == math.inf


def test_exposed_and_critical():
    tasks = [
        Task(name="a", work={"sm": 2.0}, family="gemm"),
        Task(name="b", work={"link": 3.0}, family="collective"),
        Task(name="c", work={"sm": 1.0}, family="gemm", after=(0, 1)),
    ]
    timeline = simulate_tasks(graph(tasks, {"sm": 1.0, "link": 1.0}), record=True)
    assert timeline.critical_path() == (1, 2)
    assert timeline.exposed_s("collective") == pytest.approx(1.0)
    times, used = timeline.usage("sm")
    assert times == pytest.approx([0.0, 2.0, 3.0, 4.0])
    assert used == pytest.approx(np.array([1.0, 0.0, 1.0, 0.0]))
