"""Answers with scores: best-of-N and weighted vote over sampled answers, and scores of a noisy reward model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def noisy_scores(right: NDArray[np.bool_], separation: float, rng: np.random.Generator) -> Floats:
    """Scores of a reward model: a standard normal, moved up by `separation` deviations for right answers.

    Two answers, one of them right, are told apart with chance Φ(separation / √2) (the model's AUC).
    """
    if not separation >= 0.0:
        raise InputError(separation, "a separation is 0 or more deviations")
    return rng.standard_normal(right.shape) + separation * right


def best_scored(answers: Ints, scores: Floats) -> Ints:
    """The answer with the highest score, the first of equals: int64[questions] of [questions, N]."""
    _check(answers, scores)
    best = scores.argmax(axis=1)
    return np.asarray(answers[np.arange(len(answers)), best], np.int64)


def weighted_vote(answers: Ints, weights: Floats) -> Ints:
    """The answer whose weights add up to most, the lowest number of equals: int64[questions] of [questions, N].

    Weights of one make it a majority vote. Answers are whole numbers from 0.
    """
    _check(answers, weights)
    if not answers.size or answers.min() < 0 or not (weights >= 0.0).all():
        raise InputError("votes", "answers are numbered from 0, weights are 0 or more, and there is a vote")
    rows, kinds = len(answers), int(answers.max()) + 1
    if rows * kinds > 1 << 27:
        raise InputError(kinds, "too many kinds of answers", "number each question's answers from 0")
    place = (np.arange(rows)[:, None] * kinds + answers).ravel()
    total = np.bincount(place, weights.ravel(), minlength=rows * kinds)
    return np.asarray(total.reshape(rows, kinds).argmax(axis=1), np.int64)


def _check(answers: Ints, scores: Floats) -> None:
    if answers.ndim != 2 or answers.shape != scores.shape or not np.isfinite(scores).all():
        raise InputError(answers.shape, "answers and finite scores are tables of one shape, a row a question")
