"""Majority and best-of-N against enumeration, closed forms and sampling."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.models.accuracy.majority import majority_at_k, majority_chance
from simtool.models.accuracy.solve_rates import BetaRates
from simtool.models.accuracy.verifier import Verifier, best_of


def won(votes) -> float:
    """Answer 0's share of a win; answers below 0 are like no other."""
    counts = {answer: votes.count(answer) for answer in set(votes)}
    lead = max(counts.values())
    leaders = [answer for answer, count in counts.items() if count == lead]
    return (0 in leaders) / len(leaders)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=4), st.integers(1, 5), st.booleans())
def test_majority_is_the_sum_over_all_votes(weights, votes, scattered):
    if not sum(weights):
        weights[0] = 1
    chances = [weight / sum(weights) for weight in weights]
    total = 0.0
    for vote in product(range(len(chances)), repeat=votes):
        chance = np.prod([chances[answer] for answer in vote])
        last = len(chances) - 1
        said = [-1 - place if scattered and answer == last else answer for place, answer in enumerate(vote)]
        total += chance * won(said)
    wrong = chances[1:-1] if scattered else chances[1:]
    assert majority_chance(chances[0], wrong, votes) == pytest.approx(total, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=4), st.data())
def test_majority_at_k_is_the_mean_over_subsets(counts, data):
    answers = [answer for answer, count in enumerate(counts) for _ in range(count)]
    if not answers:
        return
    votes = data.draw(st.integers(1, len(answers)))
    subsets = list(combinations(answers, votes))
    mean = sum(won(list(subset)) for subset in subsets) / len(subsets)
    assert majority_at_k(counts[0], counts[1:], votes) == pytest.approx(mean, abs=1e-9)


def test_many_votes_find_the_commonest_answer():
    assert majority_chance(0.4, [0.3, 0.2], 512) > 0.99
    assert majority_chance(0.3, [0.4], 512) < 0.01
    assert majority_chance(0.4, [0.4], 511) == pytest.approx(0.5)
    assert majority_chance(0.01, [], 512) > 0.9  # a few alike beat many that are not


@pytest.mark.parametrize("agreement", [0.0, 0.3])
def test_best_of_n_is_what_sampling_gives(agreement):
    rng = np.random.default_rng(3)
    verifier = Verifier(true_positive=0.8, false_positive=0.3, right_agreement=agreement, wrong_agreement=agreement)
    solve, answers, checks, runs = 0.35, 6, 4, 200_000
    right = rng.random((runs, answers)) < solve
    rate = np.where(right, 0.8, 0.3)
    if agreement:
        size = 1 / agreement - 1
        rate = rng.beta(rate * size, (1 - rate) * size)
    score = rng.binomial(checks, rate) + rng.random((runs, answers)) * 0.5
    sampled = right[np.arange(runs), score.argmax(axis=1)].mean()
    assert best_of(np.array([solve]), answers, verifier, checks)[0] == pytest.approx(sampled, abs=0.004)


@given(st.floats(0.0, 1.0), st.integers(1, 300), st.integers(0, 20))
def test_a_verifier_that_knows_nothing_changes_nothing(solve, answers, checks):
    blind = Verifier(true_positive=0.4, false_positive=0.4, right_agreement=0.2, wrong_agreement=0.2)
    assert best_of(np.array([solve]), answers, blind, checks)[0] == pytest.approx(solve, abs=1e-9)


def test_a_verifier_that_knows_all_reaches_coverage():
    rates = BetaRates(alpha=0.5, beta=1.0)
    sure = Verifier(true_positive=1 - 1e-9, false_positive=1e-9)
    for answers in (1, 4, 32):
        found = best_of(rates.rates(4000), answers, sure, 1).mean()
        assert found == pytest.approx(rates.coverage(answers), abs=2e-3)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: majority_chance(0.8, [0.4], 3),
        lambda: majority_chance(0.5, [], 513),
        lambda: majority_at_k(1, [1], 3),
        lambda: Verifier(true_positive=1.0, false_positive=0.1),
        lambda: Verifier(true_positive=0.9, false_positive=0.1, right_agreement=1.0),
        lambda: best_of(np.array([1.5]), 1, Verifier(true_positive=0.9, false_positive=0.1), 1),
        lambda: best_of(np.array([0.5]), 0, Verifier(true_positive=0.9, false_positive=0.1), 1),
    ],
)
def test_bad_questions_are_refused(ask):
    with pytest.raises(InputError):
        ask()
