"""Choices under a compute budget, against every other choice there is."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.models.routing.adaptive import budgeted_choices, choice_cost

COST = np.array([1.0, 1 / 16])


def valued(seed, tokens=2, layers=2):
    return np.random.default_rng(seed).lognormal(0.0, 1.0, (tokens, layers, len(COST)))


def worth(value, choice):
    taken = np.take_along_axis(value, np.maximum(choice, 0)[:, :, None].astype(np.int64), axis=2)[:, :, 0]
    return float(np.where(choice >= 0, taken, 0.0).sum())


@given(seed=st.integers(0, 2**31), budget=st.floats(0.0, 1.5))
@settings(max_examples=40, deadline=None)
def test_no_choice_of_the_same_cost_is_worth_more(seed, budget):
    value = valued(seed)
    found = budgeted_choices(value, COST, budget)
    spent = choice_cost(found, COST)
    assert spent <= budget
    for each in product((-1, 0, 1), repeat=4):
        other = np.array(each, np.int16).reshape(2, 2)
        if choice_cost(other, COST) <= spent:
            assert worth(value, other) <= worth(value, found) * (1 + 1e-9)


@given(seed=st.integers(0, 2**31), budget=st.floats(0.001, 1.0))
@settings(max_examples=20, deadline=None)
def test_of_many_tokens_the_budget_is_spent(seed, budget):
    value = valued(seed, tokens=200, layers=4)
    best = choice_cost(budgeted_choices(value, COST, np.inf), COST)
    assert choice_cost(budgeted_choices(value, COST, budget), COST) >= min(budget, best) - 1.0 / 800
    less = budgeted_choices(value, COST, budget / 2)
    assert worth(value, less) <= worth(value, budgeted_choices(value, COST, budget))


def test_without_a_budget_everything_is_skipped_and_with_all_of_it_the_best_is_taken():
    value = valued(0)
    assert (budgeted_choices(value, COST, 0.0) == -1).all()
    assert (budgeted_choices(value, COST, np.inf) == value.argmax(axis=2)).all()


@pytest.mark.parametrize(
    ("value", "cost", "budget", "word"),
    [
        (np.ones((2, 2)), COST, 1.0, "tokens x layers x modules"),
        (np.ones((2, 2, 3)), COST, 1.0, "tokens x layers x modules"),
        (-np.ones((2, 2, 2)), COST, 1.0, "finite"),
        (np.full((2, 2, 2), np.nan), COST, 1.0, "finite"),
        (np.ones((2, 2, 2)), np.array([1.0, 0.0]), 1.0, "finite"),
        (np.ones((2, 2, 2)), COST, -1.0, "0 or more"),
        (np.ones((2, 2, 2)), COST, np.nan, "0 or more"),
    ],
)
def test_bad_questions_are_refused(value, cost, budget, word):
    with pytest.raises(InputError, match=word):
        budgeted_choices(value, cost, budget)
