"""Modules of unlike size: visits of their own, bytes counted as they are."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reproductions import b9_duo_llm
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.modules import module_needs, module_store
from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.walk import walk


@given(seed=st.integers(0, 2**31), modules=st.integers(1, 3), batch=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_a_step_takes_what_its_modules_and_their_loads_take(seed, modules, batch):
    """Nothing is kept: each module that any token chose is loaded, then computes its tokens."""
    rng = np.random.default_rng(seed)
    choice = rng.integers(-1, modules, (4 * batch, 3)).astype(np.int16)
    step = np.repeat(np.arange(4), batch)
    sizes, each_s = np.arange(1, modules + 1) * 100, rng.random((modules, batch + 1))
    prices = Prices(
        dense_s=np.zeros((1, 3 * modules)),
        expert_s=np.tile(each_s, (3, 1)),
        load_s=np.tile(sizes * 0.01, 3),
    )
    store = module_store(3, sizes.tolist(), 0, staging_bytes=100 * modules)
    found = walk(store, stock.on_demand(), module_needs(choice, step, modules), prices)
    expected = 0.0
    for number in range(4):
        for layer, module in np.ndindex(3, modules):
            tokens = int((choice[step == number][:, layer] == module).sum())
            expected += (sizes[module] * 0.01 + each_s[module, tokens]) if tokens else 0.0
    assert np.isclose(found.makespan_s, expected)


def test_duo_llm_spends_its_budget_and_gains_by_it():
    runs = {budget: b9_duo_llm.run_of(1, budget) for budget in (1.0, 0.5, 0.125)}
    for budget, run in runs.items():
        cost = b9_duo_llm.choice_cost(run.choice, b9_duo_llm.SIZES)
        assert budget - 1e-3 <= cost <= budget
    big, small = b9_duo_llm.module_bytes()
    assert small == big / 16
    whole = {budget: b9_duo_llm.speed(b9_duo_llm.simulated(run, 1.0), 1) for budget, run in runs.items()}
    lru, belady = (
        {budget: b9_duo_llm.simulated(run, 0.5, policy) for budget, run in runs.items()}
        for policy in (stock.lru(), stock.belady())
    )
    assert whole[1.0] < whole[0.5] < whole[0.125]
    assert lru[1.0].hit_rate == 0.0  # layers in turn through half of the room: the next is what just left
    for budget in runs:
        assert belady[budget].hit_rate >= lru[budget].hit_rate
        assert b9_duo_llm.speed(lru[budget], 1) < whole[budget]


def test_many_tokens_need_the_big_modules_whatever_the_budget():
    """What is saved for each token is not saved for a batch: some token chooses the big one."""
    one, many = (b9_duo_llm.touched(b9_duo_llm.run_of(batch, 0.5))[0] for batch in (1, 32))
    assert one < 0.55
    assert many > 0.95
