"""The store decides as the executor's own loop over a layer's experts does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.plan import ExpertOffload
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.cache import ExpertCache
from simtool.simulator.offload.store import expert_store
from tests.offload.making import priced, seeds

torch = pytest.importorskip("torch", reason="the executor runs on torch")

from simtool.calibration.executor.offloaded_experts import OffloadedExperts  # noqa: E402
from simtool.calibration.executor.timer import FamilyTimer  # noqa: E402

EXPERTS = 6


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 4), st.integers(1, 6), st.sampled_from(["lru", "lfu"]))
def test_hits_are_those_of_the_executor_s_store(seed, batch, kept, policy):
    """The executor's own loop over a layer's experts, which puts each into a buffer of its own."""
    rng = np.random.default_rng(seed)
    offload = ExpertOffload(policy=policy, slots=kept)
    real = OffloadedExperts(torch.ones(EXPERTS, 2, 1), torch.ones(EXPERTS, 1, 1), offload, "cpu")
    cache = ExpertCache(expert_store(1, EXPERTS, 100, kept), stock.lru(evict=policy), priced(1, EXPERTS))
    timer = FamilyTimer(on=False)
    for _ in range(20):
        chosen = rng.random((batch, EXPERTS)).argsort(axis=1)[:, :2]
        real.run(torch.ones(batch, 1), torch.tensor(chosen), torch.ones(batch, 2), timer)
        cache.visit(0, np.unique(chosen).tolist())
        assert (cache.hits, cache.misses) == (real.hits, real.misses)
        assert len(set(real._place.values())) == len(real._place) <= kept
        assert sorted(real._place) == np.flatnonzero(cache.held()).tolist()
