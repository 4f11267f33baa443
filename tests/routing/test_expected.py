"""Closed forms against sampling, enumeration and each other."""

import itertools
from math import comb, factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from simtool.errors import InputError
from simtool.models.routing.expected import expected_max_load, expected_unique
from simtool.models.routing.inclusion import inclusion_probabilities, rates_of, source_inclusion
from simtool.models.routing.observed import batch_loads, decode_batches
from simtool.models.routing.source import uniform, zipf
from tests.routing.making import shape_of, sources, trace_of

rates = some.lists(some.floats(0.01, 100.0), min_size=2, max_size=6)


def enumerated(weights, top_k):
    """Inclusion by summing over every order in which the first top_k can be drawn."""
    found = np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), top_k):
        chance, left = 1.0, sum(weights)
        for expert in order:
            chance *= weights[expert] / left
            left -= weights[expert]
        found[list(order)] += chance
    return found


@settings(max_examples=60, deadline=None)
@given(rates, some.data())
def test_inclusion_is_the_sum_over_all_orders(weights, data):
    top_k = data.draw(some.integers(1, len(weights)))
    found = inclusion_probabilities(np.array([weights]), top_k)[0]
    assert found == pytest.approx(enumerated(weights, top_k), abs=1e-7)
    assert found.sum() == pytest.approx(top_k, abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(rates, some.data())
def test_rates_are_found_back_from_inclusion(weights, data):
    top_k = data.draw(some.integers(1, len(weights) - 1))
    wanted = inclusion_probabilities(np.array([weights]), top_k)
    if wanted.max() > 0.999:
        return
    assert np.allclose(inclusion_probabilities(rates_of(wanted, top_k), top_k), wanted, atol=1e-5)


def test_inclusion_that_does_not_add_up_is_refused():
    with pytest.raises(InputError, match="add up to 2"):
        rates_of(np.array([[0.5, 0.5, 0.5]]), 2)


def test_uniform_inclusion_is_k_over_n_and_groups_do_not_change_it():
    assert source_inclusion(uniform(shape_of(64, 8))) == pytest.approx(8 / 64)
    grouped = shape_of(64, 8, groups=8, topk_groups=4)
    assert source_inclusion(uniform(grouped)) == pytest.approx(8 / 64)
    with pytest.raises(InputError, match="no closed form"):
        source_inclusion(zipf(grouped, 1.0, np.random.default_rng(0)))


@given(some.integers(2, 64), some.integers(0, 200), some.data())
def test_unique_experts_of_uniform_tokens_have_the_textbook_form(experts, tokens, data):
    top_k = data.draw(some.integers(1, experts - 1))
    found = expected_unique(np.full(experts, top_k / experts), tokens)
    assert found == pytest.approx(experts * (1 - (1 - top_k / experts) ** tokens))


@settings(max_examples=12, deadline=None)
@given(sources(), some.integers(1, 12), some.integers(0, 9))
def test_unique_experts_agree_with_sampling(source, batch, seed):
    """Of one decode step of independent sequences; five standard errors, and ten batches for what is rare."""
    trace = trace_of(source, 600 * batch, seed)
    found = batch_loads(trace, decode_batches(trace, batch))
    assert found.batches == 600
    expected = expected_unique(source_inclusion(source), batch)
    assert (np.abs(found.unique - expected) <= 5 * found.unique_error + 10 / 600).all()


@settings(max_examples=30, deadline=None)
@given(some.lists(some.floats(0.01, 1.0), min_size=2, max_size=4), some.integers(1, 6))
def test_with_one_expert_a_token_the_largest_load_is_the_multinomials(weights, tokens):
    chance = np.array(weights) / sum(weights)
    exact = 0.0
    for loads in itertools.product(range(tokens + 1), repeat=len(chance)):
        if sum(loads) == tokens:
            ways = factorial(tokens) / np.prod([factorial(load) for load in loads])
            exact += max(loads) * ways * np.prod(chance ** np.array(loads))
    assert expected_max_load(chance, tokens) == pytest.approx(exact, rel=1e-9)


def test_the_largest_of_two_ranks_with_one_expert_a_token_is_binomial():
    tokens = 30
    exact = sum(comb(tokens, n) / 2**tokens * max(n, tokens - n) for n in range(tokens + 1))
    assert expected_max_load(np.full(8, 1 / 8), tokens, ranks=2) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.3])
@pytest.mark.parametrize(("experts", "top_k", "batch"), [(8, 2, 16), (64, 8, 32), (64, 6, 4)])
def test_the_largest_load_is_near_sampling(experts, top_k, batch, exponent):
    """An approximation for more than one expert a token: within 2% beside four standard errors (as CLT bounds them)."""
    source = zipf(shape_of(experts, top_k, 1), exponent, np.random.default_rng(0))
    batches = 3000
    trace = trace_of(source, batches * batch)
    inclusion = source_inclusion(source)[0]
    for ranks in (0, 2, 8):
        found = batch_loads(trace, decode_batches(trace, batch), ranks=ranks or 1)
        sampled = (found.max_rank if ranks else found.max_expert)[0]
        error = np.sqrt(batch * top_k / (ranks or experts) / batches)  # of a load's own mean; the largest varies less
        assert expected_max_load(inclusion, batch, ranks) == pytest.approx(sampled, abs=0.02 * sampled + 4 * error)


def test_an_expert_that_all_or_none_choose_is_no_trouble():
    assert expected_max_load(np.array([1.0, 0.5, 0.5, 0.0]), 20) == pytest.approx(20.0)
    assert expected_max_load(np.array([0.5, 0.5, 0.0, 0.0]), 2) == pytest.approx(1.5)
    assert expected_unique(np.array([1.0, 0.0]), 3) == pytest.approx(1.0)


@given(sources(), some.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_the_largest_load_is_between_the_mean_and_all(source, tokens):
    for inclusion in source_inclusion(source):
        found = expected_max_load(inclusion, tokens)
        assert found >= inclusion.max() * tokens * (1 - 1e-3)
        assert found <= tokens * (1 + 1e-9) or source.top_k > 1
        assert expected_max_load(inclusion, tokens, ranks=1) == pytest.approx(tokens * source.top_k)
