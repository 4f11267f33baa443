"""Low-precision copies on a miss (HOBBIT): what a token names late may be a light copy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.needs import Needs, expert_needs, light_needs
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.store import expert_store, light_store
from simtool.simulator.offload.walk import walk
from tests.offload.making import seeds

LAYERS, EXPERTS = 2, 6
quick = settings(max_examples=40, deadline=None)


def priced(store, heavy=100):
    load_s = store.object_bytes / heavy * 2.0
    return Prices(dense_s=np.ones((1, LAYERS)), expert_s=by_tokens(0.5, 0.0), load_s=load_s)


def chosen(seed, steps=30, batch=1):
    rng = np.random.default_rng(seed)
    routes = rng.random((steps * batch, LAYERS, EXPERTS)).argsort(axis=2)[:, :, :2].astype(np.int16)
    return routes, np.repeat(np.arange(steps), batch)


@quick
@given(seeds, st.integers(1, 3), st.integers(2, 6))
def test_only_what_no_token_names_first_is_light(seed, batch, slots):
    routes, step = chosen(seed, batch=batch)
    needs = light_needs(routes, step, EXPERTS, 1)
    store = light_store(LAYERS, EXPERTS, 100, 25, slots * 100)
    done = walk(store, stock.lru(), needs, priced(store), records=10_000)
    rows = [needs.objects[a:b] % (2 * EXPERTS) for a, b in zip(needs.starts, needs.starts[1:], strict=False)]
    first = [set(routes[step == visit // LAYERS, visit % LAYERS, 0].tolist()) for visit in range(len(rows))]
    may = [needs.light[a:b] >= 0 for a, b in zip(needs.starts, needs.starts[1:], strict=False)]
    assert all(
        (~light == np.isin(found, list(heavy))).all() for found, heavy, light in zip(rows, first, may, strict=True)
    )
    light = done.transfers.item % (2 * EXPERTS) >= EXPERTS
    assert light.sum() <= done.total("light") <= sum(light.sum() for light in may)
    assert done.total("loads") == done.total("misses")


@quick
@given(seeds)
def test_light_copies_take_their_share_of_the_link(seed):
    """Where nothing is kept and all may be light: the same misses, in a quarter of the link's time."""
    routes, step = chosen(seed)
    plain, light = expert_store(LAYERS, EXPERTS, 100, 0, staging=2), light_store(LAYERS, EXPERTS, 100, 25, 0)
    light = type(light)(**{name: getattr(light, name) for name in light.__slots__} | {"staging_bytes": 200})
    without = walk(plain, stock.on_demand(), expert_needs(routes, step, EXPERTS), priced(plain))
    found = walk(light, stock.on_demand(), light_needs(routes, step, EXPERTS, 0), priced(light))
    assert found.total("misses") == without.total("misses") == found.total("light")
    assert found.link_busy_s.sum() == pytest.approx(without.link_busy_s.sum() / 4)
    assert found.makespan_s < without.makespan_s


def test_a_light_copy_of_another_layer_is_refused():
    needs = Needs(
        starts=np.array([0, 1, 1]), objects=np.array([0]), tokens=np.array([1]), layers=2, light=np.array([13])
    )
    store = light_store(LAYERS, EXPERTS, 100, 25, 200)
    with pytest.raises(InputError, match="in the visit's layer"):
        walk(store, stock.lru(), needs, priced(store))
