"""Kernels as a LayerProblem: modes are the simulator's contention, and a plan simulated with its kernels is honest."""

from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.planners.schedule.kernels import KernelLayer
from simtool.planners.schedule.overlap import plan_overlap
from simtool.planners.schedule.progress import Effort
from simtool.planners.schedule.unroll import kernel_parts, unrolled
from simtool.simulator.overlap.kernel import Kernel
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import Resource, Task

RESOURCES = tuple(Resource(name=name, rate=rate) for name, rate in (("sm", 100.0), ("hbm", 10.0), ("nvlink", 1.0)))


def kernel(name, seconds, latency=0.0, tiles=0, family="gemm", sm=1.0, hbm=0.0, **flags):
    """sm, hbm: share of the resource while it is busy."""
    busy = seconds - latency
    work = {"sm": 100 * sm * busy, "hbm": 10 * hbm * busy}
    if family == "collective":
        work = {"nvlink": busy}
    used = {name: units for name, units in work.items() if units > 0}
    return Kernel(name=name, family=family, seconds=seconds, latency_s=latency, work=used, tiles=tiles, **flags)


def mixture(share):
    return (
        kernel("norm", 0.1 * share, sm=0.5, hbm=1.0),
        kernel("qkv", 2 * share),
        kernel("attention_decode", 3 * share, family="attention_decode", sm=0.5, hbm=1.0),
        kernel("o", 1.5 * share),
        kernel("norm_mlp", 0.1 * share, sm=0.5, hbm=1.0),
        kernel("moe_dispatch", 2 * share + 0.1, latency=0.1, family="collective"),
        kernel("shared", 1.0 * share, branch=True),
        kernel("experts", 4 * share, sm=0.6, hbm=1.0),
        kernel("moe_combine", 2 * share + 0.1, latency=0.1, family="collective"),
        kernel("gather", 0.5 * share, family="collective", joins=True),
    )


def layer(price, **choices):
    return KernelLayer(price=price, resources=RESOURCES, comm_sms=20, **choices)


def test_small_kernels_join_their_neighbours_and_the_branch_stands_apart():
    found = layer(mixture)
    assert found.segments() == ((0, 1), (2,), (3, 4), (5,), (6,), (7,), (8,), (9,))
    assert layer(mixture, grain=0.0).segments()[:3] == ((0,), (1,), (2,))
    problem = found.problem([0.5, 0.5])
    names = [operation.name for operation in problem.operations]
    edges = {(names[before], names[after]) for before, after in problem.precedences}
    assert ("o+norm_mlp", "shared") in edges
    assert ("shared", "gather") in edges
    assert ("shared", "experts") not in edges
    whole = [operation.cuts[-1][0].modes[0].seconds for operation in problem.operations]
    assert fsum(whole) == pytest.approx(found.none_s)


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.floats(0.1, 10.0),
    latency=st.floats(0.0, 0.9),
    sm=st.floats(0.05, 1.0),
    hbm=st.floats(0.0, 1.0),
    tiles=st.sampled_from([0, 90, 100, 150, 420]),
    share=st.sampled_from([100, 250, 500, 750, 1000]),
)
def test_a_mode_takes_what_the_simulator_takes_on_that_share(seconds, latency, sm, hbm, tiles, share):
    """The rest of the device is held by somebody else."""
    sm = tiles / 100 / -(-tiles // 100) if tiles else sm  # what its waves fill
    one = kernel("k", seconds, latency * seconds, tiles, sm=sm, hbm=hbm)
    busy = seconds - one.latency_s
    found = layer(lambda _: (one,), shares=(share / 1000,))
    task = Task(name="k", work=one.work, latency_s=one.latency_s, shortest_s=busy, tiles=tiles)
    held = Task(name="held", shortest_s=1e3, holds={"sm": 100 - share / 10})
    ran = simulate_tasks(TaskGraph(resources=RESOURCES, tasks=(held, task)))
    planned = one.latency_s + found.slowed(one, share) * busy
    assert planned == pytest.approx(float(ran.end_s[1]), rel=1e-6)


def test_modes_are_worth_their_share():
    """Half of the device is enough for the memory's kernels; a collective has the multiprocessors that it keeps."""
    problem = layer(mixture, shares=(0.25, 0.5, 1.0)).problem([1.0])
    modes = {one.name: one.cuts[0][0].modes for one in problem.operations}
    assert [mode.share for mode in modes["attention_decode"]] == [500, 250]
    assert [mode.share for mode in modes["norm+qkv"]] == [1000, 800, 500, 250]
    assert [mode.share for mode in modes["moe_combine"]] == [200]
    assert modes["moe_combine"][0].used("sm") == 200
    for found in modes.values():
        assert [mode.seconds for mode in found] == sorted(mode.seconds for mode in found)


@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_the_plan_runs_with_its_kernels(count, events):
    """All work once, each nano-batch's kernels in order, and nothing faster than its own resources allow."""
    found, batches, layers = layer(mixture), [1 / count] * count, 6
    problem = found.problem(batches)
    schedule = plan_overlap([problem], Effort(limit=0.03)).schedule
    parts = kernel_parts(found, problem, schedule, batches)
    graph = unrolled(problem, schedule, layers, parts, RESOURCES, events=events)
    ran = simulate_tasks(graph)
    for name in ("sm", "nvlink"):
        wanted = layers * fsum(one.work.get(name, 0.0) for one in mixture(1.0))
        less = 0.1 * layers if name == "nvlink" else 0.0
        assert fsum(task.work.get(name, 0.0) for task in graph.tasks) >= wanted - less
    end = dict(zip((task.name for task in graph.tasks), ran.end_s, strict=True))
    start = dict(zip((task.name for task in graph.tasks), ran.start_s, strict=True))
    for place in range(layers):
        whole = f"L{place}.0."
        assert start[whole + "attention_decode"] >= end[whole + "qkv"]
        assert start[whole + "moe_combine"] >= end[whole + "experts"]
        assert start[whole + "gather"] >= end[whole + "shared"]
    assert ran.makespan_s <= layers * found.none_s * count


def test_refused():
    with pytest.raises(InputError, match="shares of the device"):
        layer(mixture, shares=(0.0, 1.0))
    with pytest.raises(InputError, match="fewer multiprocessors"):
        KernelLayer(price=mixture, resources=RESOURCES, comm_sms=100)
    with pytest.raises(InputError, match="sum to 1"):
        layer(mixture).problem([0.5, 0.4])
