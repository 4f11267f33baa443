"""The same store driven step by step, and layer by layer as an executor does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.cache import ExpertCache
from simtool.simulator.offload.needs import Needs
from simtool.simulator.offload.store import expert_store
from simtool.simulator.offload.walk import walk
from tests.offload.making import POLICIES, mistaken, priced, routed, seeds

LAYERS, EXPERTS = 3, 6
quick = settings(max_examples=40, deadline=None)
CAUSAL = sorted(set(POLICIES) - {"belady"})


def step_of(needs: Needs, step: int) -> Needs:
    starts = needs.starts[step * needs.layers : (step + 1) * needs.layers + 1]
    span = slice(starts[0], starts[-1])
    return Needs(starts=starts - starts[0], objects=needs.objects[span], tokens=needs.tokens[span], layers=needs.layers)


@quick
@given(seeds, st.sampled_from(CAUSAL), st.integers(1, 4), st.integers(1, 6), st.booleans())
def test_a_replica_s_steps_are_the_walk(seed, name, batch, slots, shared):
    needs = routed(seed, steps=15, batch=batch)
    guess = mistaken(needs, seed, EXPERTS)
    store = expert_store(LAYERS, EXPERTS, 100, slots, shared=shared, staging=3, host=10)
    prices = priced(LAYERS, EXPERTS)
    done = walk(store, POLICIES[name], needs, prices, guess=guess)
    cache = ExpertCache(store, POLICIES[name], prices)
    ends = []
    for step in range(needs.steps):
        cache.run(step_of(needs, step), guess=step_of(guess, step))
        ends.append(cache.now_s)
    assert ends == done.end_s.tolist()
    assert (cache.hits, cache.misses) == (done.total("hits"), done.total("misses"))


def test_a_step_has_its_own_dense_seconds():
    cache = ExpertCache(expert_store(1, 2, 100, 2), stock.lru(), priced(1, 2, first_s=0.0, token_s=0.0))
    needs = Needs(starts=np.array([0, 1]), objects=np.array([0]), tokens=np.array([1]), layers=1)
    assert cache.run(needs, dense_s=[5.0]) == pytest.approx(7.0)
    assert cache.run(needs, dense_s=[4.0]) == pytest.approx(4.0)


@quick
@given(seeds, st.sampled_from(["lru", "lfu", "fifo", "random", "on-demand", "static-cpu"]), st.integers(1, 6))
def test_layer_by_layer_as_the_walk(seed, name, slots):
    """Without prefetching, decisions need no clock."""
    needs = routed(seed, steps=15, batch=2)
    store = expert_store(LAYERS, EXPERTS, 100, slots, staging=2)
    prices = priced(LAYERS, EXPERTS)
    done = walk(store, POLICIES[name], needs, prices)
    cache = ExpertCache(store, POLICIES[name], prices)
    for visit in range(len(needs.starts) - 1):
        objects = needs.objects[needs.starts[visit] : needs.starts[visit + 1]].tolist()
        found = cache.visit(visit % LAYERS, objects)
        assert sorted(found.hits + found.loads + found.cpu) == objects
    assert (cache.hits, cache.misses) == (done.total("hits"), done.total("misses"))
    assert (cache.held() == done.resident).all()
