"""Sampled answers: votes and scores against exact laws; the length curve."""

from math import erf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.models.accuracy.length_curve import LengthCurve
from simtool.models.accuracy.majority import majority_chance
from simtool.models.accuracy.votes import best_scored, noisy_scores, weighted_vote

QUESTIONS = 60_000


def sampled(rng, votes):
    """Answers of a question with chances 0.4 (right, number 0), 0.35 and 0.25."""
    return rng.choice(3, p=[0.4, 0.35, 0.25], size=(QUESTIONS, votes))


def test_a_vote_of_ones_is_the_majority():
    rng = np.random.default_rng(4)
    answers = sampled(rng, 7)
    lots = 1.0 + rng.random(answers.shape) * 1e-6  # ties by lot
    share = (weighted_vote(answers, lots) == 0).mean()
    assert share == pytest.approx(majority_chance(0.4, [0.35, 0.25], 7), abs=0.006)


def test_a_score_tells_right_from_wrong_as_often_as_declared():
    rng = np.random.default_rng(5)
    answers = np.tile([0, 1], (QUESTIONS, 1))
    for separation in (0.0, 1.0, 3.0):
        scores = noisy_scores(answers == 0, separation, rng)
        told = (best_scored(answers, scores) == 0).mean()
        assert told == pytest.approx(0.5 * (1 + erf(separation / 2)), abs=0.008)


def test_weights_that_know_help_a_vote():
    rng = np.random.default_rng(6)
    answers = sampled(rng, 8)
    scores = np.exp(noisy_scores(answers == 0, 1.0, rng))
    plain = (weighted_vote(answers, np.ones(answers.shape)) == 0).mean()
    assert (weighted_vote(answers, scores) == 0).mean() > plain + 0.05


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_vote_is_the_largest_sum(rows):
    answers = np.array(rows)
    weights = np.arange(1.0, answers.size + 1).reshape(answers.shape)
    for row, said in enumerate(weighted_vote(answers, weights)):
        sums = {kind: weights[row][answers[row] == kind].sum() for kind in range(4)}
        assert sums[int(said)] == max(sums.values())


@given(st.floats(100, 10_000))
def test_a_length_curve_stays_between_its_points(tokens):
    curve = LengthCurve(tokens=(100, 1000, 10_000), accuracy=(0.2, 0.6, 0.5))
    low, high = (0.2, 0.6) if tokens <= 1000 else (0.5, 0.6)
    assert low - 1e-12 <= curve.at(tokens) <= high + 1e-12
    assert curve.at(curve.best_length()) == pytest.approx(0.6)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: LengthCurve(tokens=(1,), accuracy=(0.5,)),
        lambda: LengthCurve(tokens=(2, 1), accuracy=(0.5, 0.5)),
        lambda: LengthCurve(tokens=(1, 2), accuracy=(0.5, 1.5)),
        lambda: LengthCurve(tokens=(1, 2), accuracy=(0.5, 0.5)).at(3),
        lambda: weighted_vote(np.array([[-1]]), np.ones((1, 1))),
        lambda: weighted_vote(np.array([[0]]), np.ones((1, 2))),
        lambda: weighted_vote(np.array([[1 << 40]]), np.ones((1, 1))),
        lambda: best_scored(np.array([[0]]), np.array([[np.nan]])),
        lambda: noisy_scores(np.array([True]), -1.0, np.random.default_rng(0)),
    ],
)
def test_bad_questions_are_refused(ask):
    with pytest.raises(InputError):
        ask()
