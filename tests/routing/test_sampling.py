"""Sampled traces: each token chooses as its source says, whatever locality, drift and groups do to its neighbours."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from simtool.errors import InputError
from simtool.models.routing.inclusion import source_inclusion
from simtool.models.routing.observed import correlation, layer_pairs, popularity, reuse
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.source import dirichlet, stretched, uniform, with_classes, zipf
from simtool.models.routing.trace import loads, needed, step_loads, step_rows
from tests.routing.making import shape_of, sources, trace_of


@settings(max_examples=40, deadline=None)
@given(sources() | sources(grouped=True), some.integers(1, 4), some.integers(0, 3), some.integers(1, 5))
def test_every_token_has_top_k_different_experts_and_the_columns_are_in_order(source, sequences, prompt, output):
    def sampled():
        rng = np.random.default_rng(1)
        return sample_trace(source, sequences=sequences, prompt_tokens=prompt, output_tokens=output, rng=rng)

    trace = sampled()
    assert trace.experts.shape == (sequences * (prompt + output), source.num_layers, source.top_k)
    ordered = np.sort(trace.experts, axis=2)
    assert (ordered[:, :, 1:] > ordered[:, :, :-1]).all()
    assert ordered.min() >= 0
    assert ordered.max() < source.num_experts
    assert np.array_equal(np.lexsort((trace.step, trace.position, trace.sequence)), np.arange(trace.tokens))
    assert np.array_equal(trace.prefill, trace.position < prompt)
    assert len(step_rows(trace, prefill=False)) == output
    assert np.array_equal(sampled().experts, trace.experts), "same seed, same trace"


@settings(max_examples=25, deadline=None)
@given(sources(grouped=True))
def test_experts_come_from_as_many_groups_as_are_open(source):
    trace = trace_of(source, 60, sequences=6)
    group = trace.experts // (source.num_experts // source.groups)
    distinct = [len(np.unique(row)) for layers in group for row in layers]
    assert max(distinct) <= source.topk_groups


def test_the_open_groups_are_those_with_the_best_expert():
    """Two groups, one of them open, one expert that nearly always wins: its group is the one."""
    source = uniform(shape_of(8, 2, 1, groups=2, topk_groups=1))
    rates = source.rates.copy()
    rates[0, 0, 5] = 1e6
    experts = trace_of(replace(source, rates=rates), 500).experts[:, 0]
    assert (experts[:, 0] == 5).mean() > 0.99
    assert (experts >= 4).mean() > 0.99


@settings(max_examples=12, deadline=None)
@given(sources(), some.integers(0, 9))
def test_a_token_chooses_each_expert_as_often_as_its_inclusion_says(source, seed):
    """Also with locality: it ties tokens together and leaves each one's law, so that chains are independent samples."""
    chains, length = 3000, 3 if source.locality else 1
    trace = trace_of(source, chains * length, seed, sequences=chains)
    last = trace.position == length - 1
    found = loads(trace.experts[last], np.zeros(chains, np.int64), 1, source.num_experts)[0] / chains
    expected = source_inclusion(source)
    error = np.sqrt(np.maximum(expected * (1 - expected), 1e-4) / chains)
    assert (np.abs(found - expected) < 5.5 * error).all()


def test_reuse_grows_with_locality_and_is_the_shared_popularity_without_it():
    source = zipf(shape_of(16, 4), 1.0, np.random.default_rng(0))
    expected = (source_inclusion(source) ** 2).sum(axis=1) / source.top_k
    found = [
        reuse(trace_of(replace(source, locality=kept), 20_000, sequences=400)).mean() for kept in (0, 0.3, 0.6, 0.9)
    ]
    assert found[0] == pytest.approx(expected.mean(), abs=4 * 0.5 / np.sqrt(40_000))
    assert (np.diff(found) > 0.05).all()
    assert found[-1] > 0.85


def test_reuse_over_longer_lags_is_less():
    trace = trace_of(replace(uniform(shape_of(16, 2)), locality=0.8), 20_000, sequences=200)
    near, far = reuse(trace).mean(), reuse(trace, lag=4).mean()
    assert near > far > 2 / 16 - 0.02


def test_classes_correlate_layers_and_keep_popularity():
    rng = np.random.default_rng(3)
    plain = zipf(shape_of(16, 2), 0.8, rng)
    classed = with_classes(plain, 8, 2.0, rng)
    assert correlation(layer_pairs(trace_of(plain, 20_000)))[0] < 0.01
    assert correlation(layer_pairs(trace_of(classed, 20_000)))[0] > 0.05
    single = classed.rates / classed.rates.sum(axis=2, keepdims=True)
    wanted = plain.rates[:, 0] / plain.rates[:, 0].sum(axis=1, keepdims=True)
    assert np.allclose(single.mean(axis=1), wanted, rtol=1e-3, atol=1e-6)


def test_drift_keeps_the_dirichlet_and_forgets_the_start():
    """A coordinate of Dirichlet(c,...,c) has mean 1/E and variance (1/E)(1-1/E)/(cE+1), at every step."""
    experts, c, layers = 8, 0.5, 400
    source = dirichlet(shape_of(experts, 1, layers), c, np.random.default_rng(0), drift=0.2)
    trace = sample_trace(source, sequences=300, output_tokens=12, rng=np.random.default_rng(1))
    shares = step_loads(trace, step_rows(trace)) / 300  # [steps, layers, experts]
    variance = (1 / experts) * (1 - 1 / experts) / (c * experts + 1)
    noise = (1 / experts - variance - 1 / experts**2) / 300
    for step in (0, 11):
        assert shares[step].var() == pytest.approx(variance + noise, rel=0.12)
    start = shares[0] - 1 / experts
    along = [float((start * (shares[step] - 1 / experts)).mean()) / variance for step in (1, 4, 11)]
    assert along == pytest.approx([0.8, 0.8**4, 0.8**11], abs=0.08)


def test_without_drift_popularity_stays():
    source = dirichlet(shape_of(8, 1, 50), 0.5, np.random.default_rng(0))
    trace = sample_trace(source, sequences=2000, output_tokens=2, rng=np.random.default_rng(1))
    shares = step_loads(trace, step_rows(trace)) / 2000
    assert np.abs(shares[0] - shares[1]).max() < 6 * np.sqrt(0.25 * 2 / 2000)


def test_a_stretched_source_keeps_modelled_layers_and_each_layers_popularity():
    source = with_classes(zipf(shape_of(16, 2, 3), 1.0, np.random.default_rng(0)), 4, 1.0, np.random.default_rng(1))
    longer = stretched(source, 9, np.random.default_rng(2))
    assert np.array_equal(longer.rates[[0, 4, 8]], source.rates)
    assert np.allclose(np.sort(longer.rates[1], axis=1), np.sort(source.rates[0], axis=1))
    with pytest.raises(InputError, match="at least the 3"):
        stretched(source, 2, np.random.default_rng(0))


@settings(max_examples=25, deadline=None)
@given(sources(), some.integers(1, 6), some.integers(1, 4))
def test_what_a_step_needs_is_what_its_tokens_chose(source, sequences, output):
    trace = sample_trace(source, sequences=sequences, output_tokens=output, rng=np.random.default_rng(0))
    rows = step_rows(trace)
    counts = step_loads(trace, rows)
    for index in range(len(rows)):
        batch = trace.experts[rows[index]]
        assert np.array_equal(needed(batch, trace.num_experts), counts[index] > 0)
        for layer in range(source.num_layers):
            plain = [sum(expert in token for token in batch[:, layer]) for expert in range(trace.num_experts)]
            assert counts[index, layer].tolist() == plain
    assert counts.sum() == trace.experts.size
    assert np.allclose(popularity(trace) * trace.tokens, counts.sum(axis=0))


def test_rows_are_found_by_request_and_place():
    trace = trace_of(uniform(shape_of(8, 2)), 20, sequences=4)
    rows = trace.rows_at(np.array([3, 0], np.int32), np.array([1, 4], np.int32))
    assert [(trace.sequence[row], trace.position[row]) for row in rows] == [(3, 1), (0, 4)]
    with pytest.raises(InputError, match="token 5 of request 0"):
        trace.rows_at(np.array([1, 0], np.int32), np.array([0, 5], np.int32))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"locality": 1.0}, "locality"),
        ({"drift": 0.5}, "Dirichlet"),
        ({"top_k": 9}, "experts a token"),
        ({"groups": 3}, "must divide"),
        ({"groups": 4, "topk_groups": 1, "top_k": 3}, "experts a token must be 1 to 2"),
        ({"rates": np.zeros((1, 1, 8))}, "above 0"),
    ],
)
def test_a_source_that_cannot_be_is_refused(change, told):
    with pytest.raises(InputError, match=told):
        replace(uniform(shape_of(8, 2, 1)), **change)
