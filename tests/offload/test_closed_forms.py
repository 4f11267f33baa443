"""Pipelines whose time is known in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.needs import every_step, expert_needs
from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.store import expert_store, layer_store
from simtool.simulator.offload.walk import walk
from tests.offload.making import priced, routed, seeds

quick = settings(max_examples=40, deadline=None)
times = st.floats(0.01, 10.0)


@quick
@given(st.lists(st.tuples(times, times), min_size=2, max_size=8), st.integers(1, 3))
def test_two_slots_stream_layers_at_the_longer_of_computing_and_loading(both, steps):
    """Superpipeline: unit time = max(exec, transfer): T = load_0 + sum max(exec_i, load_{i+1}), over all steps."""
    exec_s, load_s = np.array(both).T
    layers = len(both)
    store = layer_store([100] * layers, 200)
    prices = Prices(dense_s=np.zeros((1, layers)), expert_s=exec_s[:, None], load_s=load_s)
    needs = every_step(layers, steps)
    done = walk(store, stock.streaming(1), needs, prices, guess=needs)
    execs, loads = np.tile(exec_s, steps), np.append(np.tile(load_s, steps)[1:], 0.0)
    assert done.makespan_s == pytest.approx(load_s[0] + np.maximum(execs, loads).sum())


@quick
@given(times, times, st.integers(1, 4), st.integers(3, 6))
def test_equal_layers_stream_at_the_longer_of_the_two_however_far_ahead(exec_s, load_s, ahead, layers):
    store = layer_store([100] * layers, 100 * (ahead + 1))
    prices = Prices(dense_s=np.zeros((1, layers)), expert_s=np.full((1, 1), exec_s), load_s=np.full(layers, load_s))
    needs = every_step(layers, 20)
    done = walk(store, stock.streaming(min(ahead, layers - 1)), needs, prices, guess=needs)
    assert done.step_s()[5:-1] == pytest.approx(layers * max(exec_s, load_s))


@quick
@given(st.lists(st.tuples(times, times), min_size=1, max_size=8))
def test_expert_by_expert_with_two_slots(both):
    """M3ViT: T = load_0 + sum max(comp_i, load_{i+1})."""
    comp_s, load_s = np.array(both).T
    experts = len(both)
    needs = expert_needs(np.arange(experts, dtype=np.int16)[None, None, :], np.zeros(1, np.int64), experts)
    needs = type(needs)(
        starts=needs.starts, objects=needs.objects, tokens=np.arange(1, experts + 1), layers=1
    )  # tokens tell the experts apart, so that each has its own price
    store = expert_store(1, experts, 100, 0, staging=2)
    prices = Prices(dense_s=np.zeros((1, 1)), expert_s=np.array([[0.0, *comp_s]]), load_s=load_s)
    done = walk(store, stock.on_demand(order="each"), needs, prices)
    assert done.makespan_s == pytest.approx(load_s[0] + np.maximum(comp_s, [*load_s[1:], 0.0]).sum())


@quick
@given(seeds, times, times, times)
def test_a_pre_gated_block_takes_the_longer_of_executing_and_migrating(seed, dense_s, expert_s, load_s):
    """block time = max(exec_n, migrate_{n+1}), where exec is the experts and the next block's dense part."""
    layers, experts, top_k = 6, 8, 2
    needs = routed(seed, steps=3, layers=layers, experts=experts, top_k=top_k)
    keep = np.repeat(np.arange(len(needs.starts) - 1) % layers > 0, np.diff(needs.starts))
    starts = np.concatenate([[0], np.cumsum(keep)])[needs.starts]
    guess = type(needs)(starts=starts, objects=needs.objects[keep], tokens=needs.tokens[keep], layers=layers)
    prices = priced(layers, experts, dense_s=dense_s, first_s=expert_s, token_s=0.0, load_s=load_s)
    done = walk(expert_store(layers, experts, 100, 0, staging=2 * top_k), stock.pre_gated(), needs, prices, guess=guess)
    block = max(top_k * expert_s + dense_s, top_k * load_s)
    first = dense_s + top_k * load_s  # nothing tells the first block's experts before its gate
    assert done.step_s() == pytest.approx(first + (layers - 1) * block + top_k * expert_s)


@quick
@given(seeds, times, times, times)
def test_on_demand_waits_for_every_expert(seed, dense_s, expert_s, load_s):
    needs = routed(seed, layers=4, experts=8)
    prices = priced(4, 8, dense_s=dense_s, first_s=expert_s, token_s=0.0, load_s=load_s)
    done = walk(expert_store(4, 8, 100, 0, staging=2), stock.on_demand(), needs, prices)
    assert done.step_s() == pytest.approx(4 * (dense_s + 2 * load_s + 2 * expert_s))


@quick
@given(seeds, st.integers(0, 8), times, times, times)
def test_the_cpu_runs_beside_the_device(seed, slots, expert_s, cpu_s, load_s):
    """Static placement: a layer takes the longer side, and a sync where the CPU has any expert at all."""
    layers, experts = 4, 8
    needs = routed(seed, layers=layers, experts=experts)
    prices = priced(layers, experts, dense_s=0.3, first_s=expert_s, token_s=0.0, load_s=load_s, cpu_s=cpu_s)
    held = np.tile(np.arange(experts) < slots, layers)
    done = walk(expert_store(layers, experts, 100, slots), stock.static(), needs, prices, resident=held)
    visit = np.repeat(np.arange(len(needs.starts) - 1), np.diff(needs.starts))
    on_cpu = np.bincount(visit, ~held[needs.objects], len(needs.starts) - 1)
    on_gpu = np.bincount(visit, held[needs.objects], len(needs.starts) - 1)
    expected = 0.3 + np.maximum(on_cpu * cpu_s, on_gpu * expert_s) + 0.25 * (on_cpu > 0)
    assert done.step_s() == pytest.approx(expected.reshape(-1, layers).sum(axis=1))


@quick
@given(seeds, times, times, times, st.integers(1, 12))
def test_what_is_cheaper_on_the_cpu_stays_there(seed, expert_s, cpu_s, load_s, batch):
    """Fiddler: a copy is constant, the CPU linear in tokens, so there is a break-even number of tokens."""
    needs = routed(seed, layers=4, experts=8, batch=batch)
    prices = priced(4, 8, first_s=expert_s, token_s=0.0, load_s=load_s, cpu_s=cpu_s)
    done = walk(expert_store(4, 8, 100, 0, staging=8), stock.static("cheaper"), needs, prices)
    assert done.total("cpu") == (needs.tokens * cpu_s < load_s + expert_s).sum()
