"""The walk and the engine's task-graph simulator agree to rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.store import expert_store
from simtool.simulator.offload.walk import walk
from simtool.simulator.tasks.simulate import simulate_tasks
from tests.offload.graphs import graph_of
from tests.offload.making import mistaken, priced, routed, seeds

LAYERS, EXPERTS = 3, 6
quick = settings(max_examples=40, deadline=None)
seconds = st.floats(0.1, 5.0)


@quick
@given(
    seeds,
    st.sampled_from([stock.lru(), stock.lru(evict="lfu"), stock.belady(), stock.on_demand(order="each")]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
    seconds,
    seconds,
)
def test_loading_on_demand(seed, policy, slots, batch, from_ssd, load_s, read_s):
    """Also where a layer needs more experts than there are slots, and from an SSD through host memory."""
    needs = routed(seed, steps=12, batch=batch)
    prices = priced(LAYERS, EXPERTS, load_s=load_s, read_s=read_s)
    store = expert_store(LAYERS, EXPERTS, 100, slots, staging=slots, host=0 if from_ssd else None)
    done = walk(store, policy, needs, prices, records=10_000)
    timeline = simulate_tasks(graph_of(done, needs, prices, together=False, from_ssd=from_ssd))
    assert timeline.makespan_s == pytest.approx(done.makespan_s, rel=1e-9)


@quick
@given(
    seeds,
    st.sampled_from([stock.pre_gated(), stock.speculative(), stock.activation_matrix(1), stock.predicted_path(2)]),
    st.integers(1, 3),
    st.floats(0.0, 1.0),
    seconds,
    seconds,
)
def test_prefetching_behind_demand(seed, policy, batch, lacking, load_s, dense_s):
    """Predictions that lack some experts: misses preempt what is prefetched for the next layer."""
    needs = routed(seed, steps=12, batch=batch)
    guess = mistaken(needs, seed, EXPERTS, 0.0)
    keep = np.random.default_rng(seed).random(len(guess.objects)) >= lacking
    starts = np.concatenate([[0], np.cumsum(keep)])[guess.starts]
    guess = type(guess)(starts=starts, objects=guess.objects[keep], tokens=guess.tokens[keep], layers=LAYERS)
    prices = priced(LAYERS, EXPERTS, load_s=load_s, dense_s=dense_s)
    store = expert_store(LAYERS, EXPERTS, 100, EXPERTS, staging=2 * EXPERTS)
    together = type(policy)(**{name: getattr(policy, name) for name in policy.__slots__} | {"order": "all"})
    done = walk(store, together, needs, prices, guess=guess, records=10_000)
    assert np.isfinite(done.transfers.arrive_s[:-EXPERTS]).all()
    timeline = simulate_tasks(graph_of(done, needs, prices, together=True))
    computed = timeline.end_s[[i for i, task in enumerate(timeline.graph.tasks) if task.stream == "gpu"]]
    assert computed.max() == pytest.approx(done.makespan_s, rel=1e-9)
