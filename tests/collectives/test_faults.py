"""Faults are found in the delays that they cause."""

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster
from simtool.hardware.fabric import cluster_topology
from simtool.hardware.routes import Router
from simtool.simulator.collectives.faults import delay_matrix, slow_link
from simtool.simulator.collectives.localise import localise_faults, median_polish
from tests.collectives.star import mesh, star

N = 12
SIZE = 1e8


def noisy(delays, rng, sigma):
    return delays * np.exp(rng.normal(0.0, sigma, delays.shape))


def test_a_slow_port_is_a_row_or_a_column():
    router = star(N)
    usual = delay_matrix(router, range(N), SIZE)
    assert usual[~np.eye(N, dtype=bool)] == pytest.approx(SIZE / 1e9 + 1e-6)
    for link, kind, index in (("up3", "sender", (3, -1)), ("down5", "receiver", (-1, 5))):
        delays = delay_matrix(router, range(N), SIZE, slow_link(router.topology, link, 0.5))
        (fault,) = localise_faults(delays, usual)
        assert (fault.kind, fault.source, fault.target) == (kind, *index)
        assert fault.slowdown == pytest.approx(2.0, rel=1e-3)


def test_accuracy_over_random_faults_with_noise():
    """5% noise, slowed by 1.4 to 4: 120 faults of all kinds, and 40 matrices without any."""
    rng, router = np.random.default_rng(0), mesh(np.full((N, N), 1e9))
    usual = delay_matrix(router, range(N), SIZE)
    right = 0
    for trial in range(120):
        kind = ("sender", "receiver", "link")[trial % 3]
        i, j = rng.choice(N, 2, replace=False)
        factor = rng.uniform(1.4, 4.0)
        delays = usual.copy()
        where = {"sender": (i, slice(None)), "receiver": (slice(None), j), "link": (i, j)}[kind]
        delays[where] *= factor
        found = localise_faults(noisy(delays, rng, 0.05), usual)
        wanted = (kind, i if kind != "receiver" else -1, j if kind != "sender" else -1)
        right += [(f.kind, f.source, f.target) for f in found] == [wanted]
    assert right >= 116  # 97%
    assert sum(bool(localise_faults(noisy(usual, rng, 0.05), usual)) for _ in range(40)) <= 1


def test_two_faults_at_once():
    rng = np.random.default_rng(1)
    delays = np.full((N, N), 1e-3)
    delays[2] *= 2.0
    delays[7, 4] *= 3.0
    found = localise_faults(noisy(delays, rng, 0.02))
    assert {(f.kind, f.source, f.target) for f in found} == {("sender", 2, -1), ("link", 7, 4)}


def test_a_slow_nic_of_a_cluster():
    """NVLink cells stay as they were: most of the row is hot, and it is the sender's."""
    router = Router(topology=cluster_topology(parse_cluster("4x4xh100")), spread=True)
    usual = delay_matrix(router, range(16), SIZE)
    changes = slow_link(router.topology, "n1.nic2.out>leaf0.2", 0.4)
    found = localise_faults(
        noisy(delay_matrix(router, range(16), SIZE, changes), np.random.default_rng(0), 0.03), usual
    )
    assert (found[0].kind, found[0].source) == ("sender", 6)


def test_a_pairs_own_link():
    router = mesh(np.full((6, 6), 1e9))
    delays = delay_matrix(router, range(6), SIZE, slow_link(router.topology, "peer4>peer1", 0.25))
    (fault,) = localise_faults(delays)
    assert (fault.kind, fault.source, fault.target) == ("link", 4, 1)
    assert fault.slowdown == pytest.approx(4.0)


def test_median_polish_of_an_additive_table_leaves_nothing():
    rows, columns = np.array([0.0, 1.0, 3.0, 0.0, 0.0]), np.array([0.0, 0.0, 2.0, 0.0, -1.0])
    found = median_polish(7.0 + rows[:, None] + columns)
    assert found[0] == pytest.approx(rows)
    assert found[1] == pytest.approx(columns)
    assert found[2] == pytest.approx(np.zeros((5, 5)))


def test_a_slow_spell_ends():
    changes = slow_link(star(2).topology, "up0", 0.5, 1.0, 2.0)
    assert [(change.at_s, change.rate) for change in changes] == [(1.0, 0.5e9), (2.0, 1e9)]


def test_bad_matrices_and_links_are_refused():
    good = np.full((5, 5), 1.0)
    for bad in (good[:3, :3], good[:4], good * 0, good * np.nan):
        with pytest.raises(InputError):
            localise_faults(bad)
    with pytest.raises(InputError):
        localise_faults(good, good[:4, :4])
    for link, share in (("up9", 0.5), ("up0", 1.5), ("up0", -1.0)):
        with pytest.raises(InputError):
            slow_link(star(2).topology, link, share)
