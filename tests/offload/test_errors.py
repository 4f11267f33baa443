"""Stores, needs and prices that do not fit are refused with the value that is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.belady import fewest_loads
from simtool.simulator.offload.needs import Needs, expert_needs
from simtool.simulator.offload.policy import OffloadPolicy
from simtool.simulator.offload.store import OffloadStore, expert_store
from simtool.simulator.offload.walk import walk
from tests.offload.making import priced, routed

NEEDS = routed(0)
STORE = expert_store(3, 6, 100, 2)
PRICES = priced(3, 6)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"evict": "mru"}, "no way to evict"),
        ({"prefetch": "pool"}, "at least 1"),
        ({"window": 2}, "at least 1"),
        ({"prefetch": "pool", "window": -1}, "at least 1"),
    ],
)
def test_policies(fields, rule):
    with pytest.raises(InputError, match=rule):
        OffloadPolicy(name="mine", **fields)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: expert_store(0, 6, 100, 2), "at least one layer"),
        (lambda: expert_store(3, 6, 100, [1, 2]), "one for each layer"),
        (lambda: expert_store(3, 6, 0, 2), "object_bytes"),
        (lambda: expert_store(3, 6, 2**51, 2), "object_bytes"),
        (lambda: expert_store(3, 6, 100, -1), "pool"),
        (lambda: expert_store(3, 6, 100, 2, staging=-1), "at least 0"),
        (lambda: replace(STORE, object_layer=np.array([0, 2])), "in order"),
        (lambda: replace(STORE, pool=np.array([0, 1, 3])), "pool"),
    ],
)
def test_stores(make, rule):
    with pytest.raises(InputError, match=rule):
        make()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"needs": replace(NEEDS, layers=2)}, "whole steps of 3"),
        ({"needs": replace(NEEDS, objects=NEEDS.objects[::-1])}, "of the visit's layer"),
        ({"needs": replace(NEEDS, tokens=0 * NEEDS.tokens)}, "at least one token"),
        ({"needs": replace(NEEDS, starts=NEEDS.starts + 1)}, "ascend"),
        ({"needs": replace(NEEDS, objects=np.repeat(NEEDS.objects[::2], 2))}, "once in a visit"),
        ({"policy": stock.pre_gated()}, "no predictions"),
        ({"policy": stock.pre_gated(), "guess": routed(0, steps=2)}, "visits of the needs"),
        ({"policy": stock.on_demand()}, "fits into no room"),
        ({"policy": stock.static(), "prices": replace(PRICES, cpu_s=None)}, "no cpu_s"),
        ({"prices": replace(PRICES, load_s=np.ones(2))}, "each of 18 objects"),
        ({"prices": replace(PRICES, dense_s=np.ones((2, 3)))}, "steps, 3 layers"),
        ({"prices": replace(PRICES, expert_s=np.ones((2, 3)))}, "tokens"),
        ({"prices": replace(PRICES, step_s=np.ones(7))}, "one number or 30"),
        ({"store": replace(STORE, host_bytes=100), "prices": replace(PRICES, read_s=None)}, "read_s"),
        ({"resident": np.ones(18, bool)}, "is full"),
        ({"resident": np.ones(3, bool)}, "each of 18"),
        ({"in_host": np.ones(18, bool)}, "is limited"),
        ({"store": replace(STORE, host_bytes=500), "in_host": np.ones(18, bool)}, "is full"),
    ],
)
def test_walks(change, rule):
    fields = {"store": STORE, "policy": stock.lru(), "needs": NEEDS, "prices": PRICES} | change
    with pytest.raises(InputError, match=rule):
        walk(**fields)


@pytest.mark.parametrize("seconds", [float("nan"), -1.0, float("inf")])
def test_prices(seconds):
    with pytest.raises(InputError, match="finite"):
        priced(3, 6, load_s=seconds)


def test_routing_of_other_experts():
    with pytest.raises(InputError, match="-1 \\(none\\) to 3"):
        expert_needs(np.full((1, 1, 1), 4, np.int16), np.zeros(1), 4)
    with pytest.raises(InputError, match="a step for each token"):
        expert_needs(np.zeros((2, 1, 1), np.int16), np.zeros(1), 4)


def test_belady_needs_equal_sizes():
    store = OffloadStore(
        object_layer=np.zeros(2, np.int64),
        object_bytes=np.array([1, 2]),
        pool=np.zeros(1, np.int64),
        pool_bytes=np.ones(1, np.int64),
    )
    needs = Needs(starts=np.array([0, 1]), objects=np.array([0]), tokens=np.array([1]), layers=1)
    with pytest.raises(InputError, match="the same"):
        fewest_loads(store, needs)
