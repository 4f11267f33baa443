"""Dispatch and combine: bytes are conserved, two stages send a token once a host."""

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster
from simtool.hardware.fabric import cluster_topology
from simtool.hardware.routes import Router
from simtool.simulator.collectives.collective import Collective, collective_graph, simulate_collective, simulate_experts
from simtool.simulator.collectives.direct import add_direct
from simtool.simulator.collectives.draft import Draft, SendCosts
from simtool.simulator.collectives.routing_traffic import even_traffic, routed_traffic
from simtool.simulator.collectives.two_stage import add_two_stage
from simtool.simulator.tasks.simulate import simulate_tasks

HOSTS = (0, 0, 1, 1)


def choice(tokens=500, experts=16, k=4, ranks=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((ranks, tokens, experts)).argsort(axis=2)[:, :, :k]


def test_copies_by_hand():
    picked = [[[0, 1, 4]], [[7, 6, 5]], [[0, 2, 4]], [[3, 3, 3]]]  # 8 experts, two a rank
    traffic = routed_traffic(picked, 8, HOSTS, 10.0)
    assert traffic.to_rank.tolist() == [[10, 0, 10, 0], [0, 0, 10, 10], [10, 10, 10, 0], [0, 10, 0, 0]]
    assert traffic.to_host.tolist() == [[10, 10], [0, 10], [10, 10], [10, 0]]
    each = routed_traffic(picked, 8, HOSTS, 10.0, per_expert=True).to_rank
    assert each.sum() == 4 * 3 * 10


def test_even_traffic_is_the_mean_of_random_routing():
    routed = routed_traffic(choice(20_000), 16, HOSTS, 1.0, per_expert=True)
    even = even_traffic(HOSTS, 20_000, 4, 1.0)
    assert routed.to_rank == pytest.approx(even.to_rank, rel=0.03)
    assert routed.to_host == pytest.approx(even.to_host, rel=0.05)  # drawn with, not without replacement


@pytest.mark.parametrize("combine", [False, True])
@pytest.mark.parametrize("chunks", [1, 5])
def test_two_stages_carry_every_byte(chunks, combine):
    """Over a NIC goes one copy a remote host; over NVLink what its peers brought and is not its own."""
    router = Router(topology=cluster_topology(parse_cluster("2x2xh100")))
    traffic = routed_traffic(choice(), 16, HOSTS, 100.0)
    draft = Draft(router=router)
    add_two_stage(draft, range(4), traffic, chunks, combine=combine)
    sent = {}
    for task in draft.tasks:
        for name, amount in task.work.items():
            sent[name] = sent.get(name, 0.0) + amount
    for rank, host in enumerate(HOSTS):
        nic = f"n{host}.d{rank % 2}>n{host}.nic{rank % 2}.out"
        other = traffic.to_host[rank, 1 - host] if not combine else traffic.to_host[(rank + 2) % 4, host]
        assert sent[nic] == pytest.approx(other)
        ways = [(s, t) for s in range(4) for t in range(4) if s % 2 == rank % 2 and t // 2 == host and t != rank]
        assert sum(traffic.to_rank[s, t] for s, t in ways) == pytest.approx(
            sent[f"n{host}.d{rank % 2}>n{host}.switch"] if not combine else sent[f"n{host}.switch>n{host}.d{rank % 2}"]
        )


def test_two_stages_beat_direct_sends_where_copies_share_the_way():
    """Eight experts a token on two hosts: one copy over the network instead of about three (of 8/2, once a rank)."""
    router = Router(topology=cluster_topology(parse_cluster("2x8xh100")))
    hosts = router.topology.hosts
    traffic = routed_traffic(choice(4000, 64, 8, 16), 64, hosts, 7168.0)
    direct = simulate_experts(router, range(16), traffic, costs=SendCosts())
    staged = simulate_experts(router, range(16), traffic, costs=SendCosts(), chunks=16)
    assert staged.makespan_s < 0.6 * direct.makespan_s


def test_all_to_all_in_two_stages():
    """Same network bytes as direct sends, and the stages overlap."""
    router = Router(topology=cluster_topology(parse_cluster("4x8xh100")))
    calls = [
        Collective(kind="all_to_all", algorithm=name, size=1e9, ranks=tuple(range(32)), chunks=chunks)
        for name, chunks in (("direct", 1), ("hierarchical", 32))
    ]
    network = 24 / 32 * 1e9 / 46e9
    times = [simulate_collective(router, call).makespan_s for call in calls]
    assert network < times[1] < 1.1 * network
    assert times[0] >= network


def test_random_traffic_is_bound_by_its_fullest_port():
    router = Router(topology=cluster_topology(parse_cluster("8xh100")))
    table = np.random.default_rng(1).random((8, 8)) * 1e7
    np.fill_diagonal(table, 0.0)
    draft = Draft(router=router)
    add_direct(draft, range(8), table, stepped=True)
    fullest = max(table.sum(axis=0).max(), table.sum(axis=1).max()) / (450e9 * 0.75)
    assert fullest <= simulate_tasks(collective_graph(draft)).makespan_s < 1.5 * fullest


def test_wrong_routings_are_refused():
    for picked, experts in ((choice(), 15), (choice() + 1, 16), (choice()[0], 16)):
        with pytest.raises(InputError):
            routed_traffic(picked, experts, HOSTS, 1.0)
    router = Router(topology=cluster_topology(parse_cluster("2x2xh100")))
    with pytest.raises(InputError, match="host by host"):
        add_two_stage(Draft(router=router), (0, 2, 1, 3), even_traffic(HOSTS, 1, 2, 1.0), 1)


def test_low_latency_dispatch_on_more_nodes_follows_from_one():
    """DeepEP on H800, published 77, 118, 155 us for 8, 16, 32 ranks: the call's own time from 8, the rest blind."""
    seconds = []
    for ranks in (8, 16, 32):
        router = Router(topology=cluster_topology(parse_cluster(f"{ranks // 8}x8xh800")), spread=True)
        traffic = even_traffic(router.topology.hosts, 128, 8, 7168 + 240.0)
        seconds.append(simulate_experts(router, range(ranks), traffic, costs=SendCosts()).makespan_s)
    call_s = 77e-6 - seconds[0]
    assert seconds[1] + call_s == pytest.approx(118e-6, rel=0.05)
    assert seconds[2] + call_s == pytest.approx(155e-6, rel=0.05)
