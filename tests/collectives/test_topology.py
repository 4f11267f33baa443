"""Paths on built topologies."""

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster
from simtool.hardware.fabric import Fabric, cluster_topology, wide_area_topology
from simtool.hardware.routes import Router, path_loads


def names(router, source, target):
    return [link.name for link in router.links(router.path(source, target))]


def test_paths_of_a_rail_fabric():
    topology = cluster_topology(parse_cluster("2x4xh100"), Fabric(nodes_per_leaf=2))
    router = Router(topology=topology)
    assert names(router, 0, 1) == ["n0.d0>n0.switch", "n0.switch>n0.d1"]
    rail = ["n0.d2>n0.nic2.out", "n0.nic2.out>leaf0.2", "leaf0.2>n1.nic2.in", "n1.nic2.in>n1.d2"]
    assert names(router, 2, 6) == rail
    crossing = router.paths(0, 5)
    assert len(crossing) == 2  # an uplink for each NIC of the leaf
    assert all(len(path) == 6 for path in crossing)
    assert router.path(0, 5) in crossing
    assert names(router, 3, 3) == []


def test_a_message_pays_each_latency_once():
    cluster = parse_cluster("2x4xh100")
    router = Router(topology=cluster_topology(cluster, Fabric(switch_latency_s=1e-6)))
    inter, intra = cluster.groups[0].inter, cluster.groups[0].intra
    assert router.latency_s(router.path(0, 1)) == pytest.approx(intra.latency_s)
    assert router.latency_s(router.path(0, 4)) == pytest.approx(inter.latency_s)
    assert router.latency_s(router.path(0, 5)) == pytest.approx(inter.latency_s + 2e-6)


@pytest.mark.parametrize("over", [0.5, 1.0, 2.0, 3.0])
def test_uplinks_have_the_oversubscribed_bandwidth(over):
    topology = cluster_topology(parse_cluster("8x2xh100"), Fabric(nodes_per_leaf=4, oversubscription=over))
    up = [link for link in topology.links if link.source == "leaf0.0" and link.target.startswith("spine")]
    nic = next(link for link in topology.links if link.source == "n0.nic0.out")
    assert sum(link.bytes_per_s for link in up) == pytest.approx(4 * nic.bytes_per_s / over)


def test_shared_nics_and_pcie_nodes():
    topology = cluster_topology(parse_cluster("2x4xl40s"))
    router = Router(topology=topology)
    assert names(router, 0, 1)[0] == names(router, 0, 4)[0] == "n0.d0>n0.d0.port"  # one port for both
    assert any("nic" in name for name in names(router, 0, 4))
    assert not any("nic" in name for name in names(router, 0, 1))


def test_hashing_is_repeatable_and_spreads():
    topology = cluster_topology(parse_cluster("16x2xh100"), Fabric(nodes_per_leaf=8, rails=False))
    paths = {seed: Router(topology=topology, seed=seed).path(0, 31) for seed in range(40)}
    assert paths == {seed: Router(topology=topology, seed=seed).path(0, 31) for seed in range(40)}
    assert len(set(paths.values())) > 5
    router = Router(topology=topology)
    assert {router.path(0, 31, flow) for flow in range(200)} == set(router.paths(0, 31))
    load = path_loads(topology, [(router.path(0, 31), 46e9)])
    assert load["n0.nic0.out>leaf0.0"] == pytest.approx(1.0)


def test_wide_area_links():
    rates = np.array([[0, 2e9, 1e9], [1e9, 0, np.nan], [1e9, 1e9, 0]])
    router = Router(topology=wide_area_topology(rates, 0.01, port_bytes_per_s=3e9))
    assert [link.bytes_per_s for link in router.links(router.path(0, 1))] == [3e9, 2e9, 3e9]
    with pytest.raises(InputError, match="cannot be reached"):
        router.path(1, 2)  # no peer forwards


@pytest.mark.parametrize("bad", [[[1.0]] * 2, [1.0], [[0, float("inf")], [1, 0]]])
def test_bad_matrices_are_refused(bad):
    with pytest.raises(InputError):
        wide_area_topology(bad)


def test_bad_fabrics_are_refused():
    for fabric in (Fabric(nodes_per_leaf=0), Fabric(oversubscription=0.0), Fabric(oversubscription=float("nan"))):
        with pytest.raises(InputError):
            cluster_topology(parse_cluster("2x8xh100"), fabric)


def test_spread_packets_fill_all_paths_evenly():
    topology = cluster_topology(parse_cluster("4x2xh100"), Fabric(nodes_per_leaf=2))
    router = Router(topology=topology, spread=True)
    shares = {topology.links[link].name: share for link, share in router.shares(0, 5).items()}
    paths = router.paths(0, 5)
    for link in {link for path in paths for link in path}:
        expected = sum(link in path for path in paths) / len(paths)
        assert shares[topology.links[link].name] == pytest.approx(expected)
    assert router.shares(1, 1) == {}
    assert set(Router(topology=topology).shares(0, 5).values()) == {1.0}
