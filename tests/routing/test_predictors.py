"""Predictors: perfect is perfect, a stated accuracy is reached, a match is what a plain search finds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from simtool.errors import InputError
from simtool.models.routing.matrix_predictor import MatrixPredictor, recorded_matrices
from simtool.models.routing.prediction import accuracy
from simtool.models.routing.predictors import GatePredictor, LearnedPredictor, PerfectPredictor
from simtool.models.routing.source import with_classes, zipf
from simtool.models.routing.trace import needed, step_rows
from simtool.models.routing.transition_predictor import TransitionPredictor, recorded_transitions
from tests.routing.making import shape_of, sources, trace_of


def some_trace(layers=4, sequences=40, tokens=2000):
    source = zipf(shape_of(16, 4, layers), 0.8, np.random.default_rng(0))
    return trace_of(source, tokens, sequences=sequences)


def transition_predictors(trace, lookahead):
    """One, where the trace has layers enough."""
    if lookahead >= len(trace.layers):
        return ()
    return (TransitionPredictor(tables=recorded_transitions(trace, lookahead), most=3),)


def predictors(trace, lookahead):
    matrices = recorded_matrices(trace, 5)
    return (
        PerfectPredictor(),
        GatePredictor(hit_rates=(0.8, 0.6)),
        LearnedPredictor(recall=(0.7,), precision=(0.5,)),
        MatrixPredictor(matrices=matrices, most=3),
        *transition_predictors(trace, lookahead),
    )


@settings(max_examples=25, deadline=None)
@given(sources(), some.integers(1, 2), some.integers(0, 3))
def test_predictions_are_experts_of_the_layer_named_once_and_the_same_for_a_seed(source, lookahead, seed):
    trace = trace_of(source, 30, sequences=5)
    for predictor in predictors(trace, lookahead):
        found = predictor.predict(trace, lookahead, np.random.default_rng(seed))
        again = predictor.predict(trace, lookahead, np.random.default_rng(seed))
        assert np.array_equal(found.experts, again.experts)
        assert found.experts.shape[:2] == trace.experts.shape[:2]
        assert found.experts.min(initial=0) >= -1
        assert found.experts.max(initial=0) < trace.num_experts
        assert not (found.experts[:, : found.first_layer] >= 0).any()
        for token in found.experts:
            for row in token:
                named = row[row >= 0]
                assert len(set(named.tolist())) == len(named)
                assert (row[: len(named)] >= 0).all(), "the likeliest first, nobody behind"


@settings(max_examples=25, deadline=None)
@given(sources(), some.integers(1, 3))
def test_perfect_has_recall_and_precision_1(source, lookahead):
    trace = trace_of(source, 30, sequences=5)
    found = PerfectPredictor().predict(trace, lookahead, np.random.default_rng(0))
    right = accuracy(found, trace)
    assert (right.recall, right.precision) == (1.0, 1.0)
    rows = step_rows(trace)[0]
    assert np.array_equal(needed(found.experts[rows], 99), needed(trace.experts[rows], 99)), "and so has its batch"


@settings(max_examples=20, deadline=None)
@given(some.floats(0.0, 1.0), some.floats(0.35, 1.0), some.integers(0, 5))
def test_learned_reaches_its_recall_and_precision(recall, precision, seed):
    """Within five standard errors: recall of a share, precision by that of hits and of wrong ones."""
    trace = some_trace()
    predictor = LearnedPredictor(recall=(recall,), precision=(precision,))
    right = accuracy(predictor.predict(trace, 1, np.random.default_rng(seed)), trace)
    choices = trace.experts.size
    error = 5 * np.sqrt(recall * (1 - recall) / choices)
    assert right.recall == pytest.approx(recall, abs=error + 1e-4)
    if recall > 0.05:
        wanted = recall * trace.top_k
        wrong = wanted * (1 - precision) / precision
        wrong = wrong if wrong <= trace.num_experts - trace.top_k else trace.num_experts - trace.top_k
        assert right.precision == pytest.approx(wanted / (wanted + wrong), abs=0.02)


def test_recall_falls_with_lookahead_as_it_is_given():
    trace = some_trace()
    predictor = LearnedPredictor(recall=(0.9, 0.5), precision=(1.0, 0.8))
    found = [accuracy(predictor.predict(trace, ahead, np.random.default_rng(0)), trace) for ahead in (1, 2)]
    assert [right.recall for right in found] == pytest.approx([0.9, 0.5], abs=0.02)
    assert found[0].precision == 1.0
    with pytest.raises(InputError, match="given for 1 to 2"):
        predictor.predict(trace, 3, np.random.default_rng(0))


@pytest.mark.parametrize("ahead", [1, 2])
def test_a_gate_names_top_k_experts_and_finds_its_share_of_them(ahead):
    trace = some_trace()
    found = GatePredictor(hit_rates=(0.8, 0.55)).predict(trace, ahead, np.random.default_rng(0))
    right = accuracy(found, trace)
    wanted = (0.8, 0.55)[ahead - 1]
    choices = trace.experts[:, ahead:].size
    assert right.recall == pytest.approx(wanted, abs=5 * np.sqrt(wanted * (1 - wanted) / choices))
    assert right.precision == right.recall
    assert right.predicted == trace.top_k
    assert np.isnan(right.layer_recall[:ahead]).all()


@settings(max_examples=15, deadline=None)
@given(some.integers(1, 2), some.integers(0, 20), some.integers(1, 4))
def test_transitions_name_what_followed_the_tokens_experts(lookahead, seed, most):
    rng = np.random.default_rng(seed)
    source = with_classes(zipf(shape_of(6, 2, 3), 0.5, rng), 3, 2.0, rng)
    recorded, trace = (trace_of(source, 40, seed + other) for other in (0, 1))
    found = TransitionPredictor(tables=recorded_transitions(recorded, 2), most=most).predict(trace, lookahead, rng)
    assert not (found.experts[:, :lookahead] >= 0).any()
    for token in range(trace.tokens):
        for layer in range(lookahead, 3):
            score = np.zeros(6)
            for expert in trace.experts[token, layer - lookahead]:
                had = (recorded.experts[:, layer - lookahead] == expert).any(axis=1)
                after = np.bincount(recorded.experts[had, layer].ravel(), minlength=6)
                if not had.any():
                    after = np.bincount(recorded.experts[:, layer].ravel(), minlength=6)
                score += after / after.sum()
            assert np.allclose(score[found.experts[token, layer]], np.sort(score)[::-1][:most])


def test_transitions_beat_popularity_where_layers_are_tied():
    rng = np.random.default_rng(0)
    source = with_classes(zipf(shape_of(32, 2, 3), 0.2, rng), 8, 3.0, rng)
    recorded, trace = (trace_of(source, 6000, seed) for seed in (1, 2))
    tables = recorded_transitions(recorded, 1)
    popular = (np.broadcast_to(tables[0].mean(axis=1, keepdims=True), tables[0].shape),)
    right, plain = (
        accuracy(TransitionPredictor(tables=one, most=2).predict(trace, 1, rng), trace).recall
        for one in (tables, popular)
    )
    assert right > plain + 0.2


def plain_match(trace, matrices, row, layer, lookahead, most):
    """The strongest experts of the recorded matrix with the highest mean cosine, one layer after the other."""
    counts = np.zeros(matrices.shape[1:])
    for other in range(trace.tokens):
        if trace.sequence[other] == trace.sequence[row] and other <= row:
            for known in range(matrices.shape[1]):
                if other < row or known <= layer - lookahead:
                    counts[known, trace.experts[other, known]] += 1
    scores = []
    for matrix in matrices:
        parts = [
            own @ recorded / (np.linalg.norm(own) * np.linalg.norm(recorded)) if own.any() else 0.0
            for own, recorded in zip(counts, matrix, strict=True)
        ]
        scores.append(sum(parts))
    return scores, most


@settings(max_examples=15, deadline=None)
@given(some.integers(1, 3), some.integers(0, 20), some.integers(1, 4))
def test_the_matched_matrix_is_the_one_that_a_plain_search_finds(lookahead, seed, most):
    rng = np.random.default_rng(seed)
    source = with_classes(zipf(shape_of(6, 2, 3), 0.5, rng), 3, 2.0, rng)
    trace = trace_of(source, 12, seed, sequences=3)
    matrices = recorded_matrices(trace_of(source, 40, seed + 1, sequences=5))
    found = MatrixPredictor(matrices=matrices, most=most).predict(trace, lookahead, rng)
    for row in range(trace.tokens):
        for layer in range(3):
            scores, _ = plain_match(trace, matrices, row, layer, lookahead, most)
            good = [matrices[m, layer] for m, score in enumerate(scores) if score >= max(scores) - 1e-5]
            named = found.experts[row, layer]
            named = named[named >= 0]
            assert any(
                len(named) == min(most, int((matrix > 0).sum()))
                and np.allclose(np.sort(matrix[named])[::-1], np.sort(matrix)[::-1][: len(named)])
                for matrix in good
            )


def test_a_match_beats_popularity_where_sequences_keep_to_their_experts():
    rng = np.random.default_rng(0)
    source = replace(with_classes(zipf(shape_of(32, 2, 4), 0.2, rng), 8, 3.0, rng), locality=0.95)
    recorded, trace = (trace_of(source, 6000, seed, sequences=300) for seed in (1, 2))
    match = MatrixPredictor(matrices=recorded_matrices(recorded), most=2)
    average = MatrixPredictor(matrices=recorded_matrices(recorded).mean(axis=0, keepdims=True), most=2)
    right, plain = (accuracy(p.predict(trace, 1, rng), trace).recall for p in (match, average))
    assert right > plain + 0.2


def test_what_no_predictor_can_be_is_refused():
    trace = some_trace(tokens=40)
    for make in (
        lambda: GatePredictor(hit_rates=(1.2,)),
        lambda: GatePredictor(hit_rates=()),
        lambda: LearnedPredictor(recall=(0.5,), precision=(0.0,)),
        lambda: LearnedPredictor(recall=(0.5, 0.4), precision=(0.5,)),
        lambda: PerfectPredictor().predict(trace, 0, np.random.default_rng(0)),
        lambda: recorded_transitions(trace, 4),
        lambda: TransitionPredictor(tables=recorded_transitions(trace, 1), most=1).predict(trace, 2, None),
        lambda: TransitionPredictor(tables=(np.ones((1, 2, 2)),), most=1).predict(trace, 1, None),
        lambda: MatrixPredictor(matrices=np.ones((1, 1, 4), np.float32), most=1).predict(trace, 1, None),
    ):
        with pytest.raises(InputError):
            make()
