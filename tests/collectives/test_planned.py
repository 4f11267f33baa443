"""Planned rings and paths: never worse than their baselines, proven against brute force, checked apart."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InfeasibleError, InputError
from simtool.hardware.cluster import parse_cluster
from simtool.hardware.fabric import Fabric, cluster_topology
from simtool.hardware.routes import Router
from simtool.planners.check import CheckError
from simtool.planners.check_network import check_paths, check_ring
from simtool.planners.path_plan import plan_paths
from simtool.planners.ring_order import nearest_neighbour, plan_ring, ring_bottleneck, ring_sum


def matrix(n, seed):
    return np.round(np.random.default_rng(seed).uniform(1.0, 100.0, (n, n))) * 1e6


@given(st.integers(2, 6), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_best_ring_is_the_best_of_all(n, seed):
    rates = matrix(n, seed)
    np.fill_diagonal(rates, 0.0)
    rings = [(0, *rest) for rest in permutations(range(1, n))]
    best = max(ring_bottleneck(rates, ring) for ring in rings)
    least = min(ring_sum(rates, ring) for ring in rings if ring_bottleneck(rates, ring) == best)
    plan = plan_ring(rates)
    check_ring(plan.order, rates.tolist(), plan.bottleneck_bytes_per_s)
    assert plan.bottleneck_bytes_per_s == best
    assert plan.certificate.closed
    assert plan.certificate.bound == best
    assert ring_sum(rates, plan.order) == pytest.approx(least, rel=1e-5)
    assert plan.sum_certificate.bound <= plan.sum_certificate.objective


@pytest.mark.parametrize("n", [12, 24])
def test_never_worse_than_given_or_nearest(n):
    rates = matrix(n, n)
    np.fill_diagonal(rates, 0.0)
    plan = plan_ring(rates)
    check_ring(plan.order, rates.tolist(), plan.bottleneck_bytes_per_s)
    given_order = ring_bottleneck(rates, range(n))
    nearest = max(ring_bottleneck(rates, nearest_neighbour(rates, first)) for first in range(n))
    assert plan.baseline_bytes_per_s == max(given_order, nearest)
    assert plan.bottleneck_bytes_per_s >= plan.baseline_bytes_per_s
    assert plan.certificate.bound >= plan.bottleneck_bytes_per_s


def test_a_ring_crosses_the_sea_twice():
    """Two shores, slow between them: one way there and one back."""
    shore = np.arange(10) % 2
    rates = np.where(shore[:, None] == shore, 45e9, 25e9)
    order = np.array(plan_ring(rates).order)
    assert np.sum(shore[order] != shore[np.roll(order, -1)]) == 2


def test_no_ring():
    rates = np.full((4, 4), 1e9)
    rates[:, 2] = 0.0
    with pytest.raises(InfeasibleError, match="ring"):
        plan_ring(rates)
    for bad in ([[1.0]], np.ones((2, 3)), -np.ones((3, 3)), np.full((3, 3), np.inf)):
        with pytest.raises(InputError):
            plan_ring(bad)


def test_the_ring_checker_sees_through():
    rates = np.full((4, 4), 2.0)
    rates[3, 0] = 1.0
    check_ring((0, 2, 3, 1), rates.tolist(), 2.0)
    for order, claimed in (((0, 1, 2), 1.0), ((0, 1, 2, 2), 1.0), ((0, 1, 2, 3), 2.0)):
        with pytest.raises(CheckError):
            check_ring(order, rates.tolist(), claimed)


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_planned_paths_are_never_worse(seed):
    rng = np.random.default_rng(seed)
    topology = cluster_topology(parse_cluster("8x2xh100"), Fabric(nodes_per_leaf=4, rails=False, oversubscription=2.0))
    targets = rng.permutation(16)
    flows = [(s, int(t), float(rng.integers(1, 5)) * 1e9) for s, t in enumerate(targets) if s != t]
    router = Router(topology=topology, seed=seed)
    plan = plan_paths(router, flows)
    check_paths(topology, flows, plan.paths, plan.busiest_s)
    assert plan.busiest_s <= min(plan.hashed_s, plan.greedy_s)
    assert plan.certificate.bound <= plan.busiest_s


def test_few_flows_each_get_an_uplink():
    """Four equal flows, four uplinks: hashing may double up, a plan does not, and it is proven."""
    topology = cluster_topology(parse_cluster("8x1xh100"), Fabric(nodes_per_leaf=4))
    flows = [(rank, rank + 4, 46e9) for rank in range(4)]
    plans = [plan_paths(Router(topology=topology, seed=seed), flows) for seed in range(6)]
    assert {round(plan.busiest_s, 6) for plan in plans} == {1.0}
    assert all(plan.certificate.closed for plan in plans)
    assert max(plan.hashed_s for plan in plans) >= 1.99
    router = Router(topology=topology, planned=plans[0].paths)
    assert router.path(0, 4) == plans[0].paths[0, 4]


def test_the_path_checker_sees_through():
    topology = cluster_topology(parse_cluster("2x2xh100"))
    router = Router(topology=topology)
    flows = [(0, 3, 1e9)]
    plan = plan_paths(router, flows)
    with pytest.raises(CheckError, match="load"):
        check_paths(topology, flows, plan.paths, plan.busiest_s / 2)
    path = plan.paths[0, 3]
    detour = (*router.path(0, 1), *router.path(1, 3))  # device 1 would have to forward
    for wrong in (path[:-1], path[1:], detour):
        with pytest.raises(CheckError, match="path"):
            check_paths(topology, flows, {(0, 3): wrong}, 1.0)
    with pytest.raises(InputError):
        plan_paths(router, [*flows, *flows])
