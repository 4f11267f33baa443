"""Collectives on ideal links take what their formulas say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster
from simtool.hardware.collective_algorithms import algorithm_seconds, network_seconds
from simtool.hardware.fabric import cluster_topology
from simtool.hardware.routes import Router
from simtool.simulator.collectives.collective import Collective, add_collective, collective_graph, simulate_collective
from simtool.simulator.collectives.draft import Draft, SendCosts
from simtool.simulator.collectives.ring import rail_rings
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import RateChange, Resource, Task
from tests.collectives.star import mesh, star

SIZE = 3e6


def seconds(router, kind, algorithm, ranks, **more):
    ranks = tuple(range(ranks)) if isinstance(ranks, int) else ranks
    call = Collective(kind=kind, algorithm=algorithm, size=more.pop("size", SIZE), ranks=ranks, **more)
    return simulate_collective(router, call).makespan_s


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("n", [2, 3, 8])
def test_ring(n, stepped):
    """Ring all-reduce: 2(n-1)/n · bytes / rate + 2(n-1) · latency; gather and scatter half of it."""
    router = star(n)
    for kind, rounds in (("all_reduce", 2), ("all_gather", 1), ("reduce_scatter", 1)):
        expected = rounds * (n - 1) * (1e-6 + SIZE / n / 1e9)
        assert seconds(router, kind, "ring", n, stepped=stepped) == pytest.approx(expected, rel=1e-9)


@given(st.integers(2, 7), st.data())
@settings(max_examples=40, deadline=None)
def test_one_task_is_as_long_as_all_steps(n, data):
    """Whatever the rates: a ring of single steps ends when the slowest edge has done all of its own."""
    rates = np.array(data.draw(st.lists(st.floats(1e8, 1e10), min_size=n * n, max_size=n * n))).reshape(n, n)
    router = mesh(rates, 1e-5)
    for kind in ("all_reduce", "all_gather"):
        whole = seconds(router, kind, "ring", n)
        assert whole == pytest.approx(seconds(router, kind, "ring", n, stepped=True), rel=1e-9)
        slowest = min(rates[i, (i + 1) % n] for i in range(n))
        steps = (2 if kind == "all_reduce" else 1) * (n - 1)
        assert whole == pytest.approx(steps * (1e-5 + SIZE / n / slowest), rel=1e-9)


@pytest.mark.parametrize("cluster", ["8xh200", "8xa100-80g", "4xl40s"])
@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("all_reduce", "ring"),
        ("all_gather", "ring"),
        ("reduce_scatter", "ring"),
        ("send_recv", "ring"),
        ("all_reduce", "tree"),
        ("all_reduce", "two_shot"),
        ("all_reduce", "one_shot"),
        ("all_gather", "direct"),
        ("all_to_all", "direct"),
    ],
)
def test_formulas_of_the_catalogue(cluster, kind, algorithm):
    """On one node's links the simulation is the alpha-beta formula of `hardware/collective_algorithms`."""
    parsed = parse_cluster(cluster)
    group, router = parsed.groups[0], Router(topology=cluster_topology(parsed))
    formula = algorithm_seconds(kind, algorithm, np.array([SIZE]), group.devices, group.intra)[0]
    assert seconds(router, kind, algorithm, group.devices) == pytest.approx(formula, rel=1e-9)


def test_in_switch_reduction():
    parsed = parse_cluster("8xh200")
    router = Router(topology=cluster_topology(parsed))
    formula = algorithm_seconds("all_reduce", "nvls", np.array([SIZE]), 8, parsed.groups[0].intra)[0]
    assert seconds(router, "all_reduce", "nvls", 8) == pytest.approx(formula, rel=1e-9)
    for other in (Router(topology=cluster_topology(parse_cluster("8xa100-80g"))), star(4, reduces=False)):
        with pytest.raises(InputError, match="switch"):
            seconds(other, "all_reduce", "nvls", 4)


def test_chunks_fill_a_tree_to_its_limit():
    """Chunks cost nothing but the way up and down of the last one: from above to the one-task tree."""
    router = star(8)
    times = [seconds(router, "all_reduce", "tree", 8, stepped=True, chunks=c, size=1e9) for c in (1, 4, 64)]
    limit = seconds(router, "all_reduce", "tree", 8, size=1e9)
    assert times[0] > times[1] > times[2] > limit
    assert times[2] < 1.35 * limit


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter"])
def test_hierarchy_overlaps_its_stages(kind):
    """Two nodes: many chunks → latency plus the slower of inside and network, as `network_seconds` has it."""
    parsed = parse_cluster("2x8xh100")
    group, router = parsed.groups[0], Router(topology=cluster_topology(parsed))
    size = 1e10
    whole = seconds(router, kind, "hierarchical", 16, size=size, chunks=128)
    transfer = network_seconds(kind, np.array([size]), 2, 8, group.inter, group.nics)[1][0]
    inside = algorithm_seconds(kind, "ring", np.array([size]), 8, group.intra)[0]
    assert max(transfer, inside) < whole < 1.03 * max(transfer, inside) + 1e-3
    one = seconds(router, kind, "hierarchical", 16, size=size)
    assert one == pytest.approx(transfer + inside, rel=1e-3)


def test_two_flows_share_a_link_and_incast():
    router = star(5)
    draft = Draft(router=router)
    draft.add("long", [(0, 2, 2e6)])
    draft.add("short", [(1, 2, 1e6)])
    ends = simulate_tasks(collective_graph(draft)).end_s
    assert ends[1] == pytest.approx(1e-6 + 2e-3)  # half of the port of rank 2 while both send
    assert ends[0] == pytest.approx(1e-6 + 3e-3)
    draft = Draft(router=router)
    for source in range(1, 5):
        draft.add("incast", [(source, 0, 1e6)])
    assert simulate_tasks(collective_graph(draft)).end_s == pytest.approx([4e-3 + 1e-6] * 4)


@given(st.integers(2, 6), st.sampled_from(["all_to_all", "all_gather"]))
@settings(max_examples=15, deadline=None)
def test_a_ranks_sends_as_one_task_or_many(n, kind):
    router = star(n)
    assert seconds(router, kind, "direct", n) == pytest.approx(seconds(router, kind, "direct", n, stepped=True))


def test_rings_use_all_rails():
    """One ring between nodes has one NIC's bandwidth, eight have all of it; an even count of nodes stays on rails."""
    topology = cluster_topology(parse_cluster("4x8xh100"))
    router = Router(topology=topology)
    order = tuple(rail_rings(list(topology.members().values()), 1)[0])
    one = seconds(router, "all_reduce", "ring", order, size=1e10)
    eight = seconds(router, "all_reduce", "ring", 32, rings=8, size=1e10)
    assert one / eight == pytest.approx(8.0, rel=0.01)
    assert one == pytest.approx(62 / 32 * 1e10 / (50e9 * 0.92), rel=0.01)


def test_a_failed_link_stops_and_a_slow_one_slows():
    router = star(4, latency_s=0.0)
    call = Collective(kind="all_reduce", size=4e9, ranks=(0, 1, 2, 3))
    assert simulate_collective(router, call).makespan_s == pytest.approx(6.0)
    half = [RateChange(at_s=3.0, resource="up1", rate=0.5e9)]
    assert simulate_collective(router, call, changes=half).makespan_s == pytest.approx(9.0)
    gap = [RateChange(at_s=3.0, resource="up1", rate=0.0), RateChange(at_s=5.0, resource="up1", rate=1e9)]
    assert simulate_collective(router, call, changes=gap).makespan_s == pytest.approx(8.0)
    with pytest.raises(InputError, match="never ends"):
        simulate_collective(router, call, changes=gap[:1])


def test_messages_take_the_senders_time():
    """Small messages are bound by how fast they are issued, large ones by the link."""
    router = star(2, latency_s=0.0)
    call = Collective(kind="send_recv", size=1e6, ranks=(0, 1))
    for message_bytes, expected in ((1e3, 10e-3), (1e5, 1e-3)):
        costs = SendCosts(call_s=1e-3, message_s=1e-5, message_bytes=message_bytes)
        assert simulate_collective(router, call, costs=costs).makespan_s == pytest.approx(1e-3 + expected)


def test_a_collective_holds_multiprocessors_in_a_step():
    """Beside a kernel: 20 of 100 multiprocessors are the collective's while it runs."""
    router = star(2, latency_s=0.0)
    kernel = Task(name="gemm", stream="compute", work={"sm": 100e-3})
    draft = Draft(router=router, first=1, sms=20, sm={0: "sm"})
    add_collective(draft, Collective(kind="all_reduce", size=1e6, ranks=(0, 1)))
    graph = TaskGraph(resources=(Resource(name="sm", rate=100.0), *draft.resources()), tasks=(kernel, *draft.tasks))
    ends = simulate_tasks(graph).end_s
    assert ends[1] == pytest.approx(1e-3)
    assert ends[0] == pytest.approx(1e-3 + 0.2e-3)


def test_what_is_no_collective_is_refused():
    router = star(4)
    for bad in ({"ranks": (0, 0)}, {"ranks": (0, 9)}, {"ranks": ()}, {"ranks": (0, 1), "chunks": 0}):
        with pytest.raises(InputError):
            simulate_collective(router, Collective(kind="all_reduce", size=1.0, **bad))
    with pytest.raises(InputError, match="does not do"):
        seconds(router, "all_gather", "tree", 4)
    with pytest.raises(InputError, match="bytes"):
        seconds(router, "all_reduce", "ring", 4, size=float("nan"))
