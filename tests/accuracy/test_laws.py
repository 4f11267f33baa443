"""Closed forms of coverage, saturation, power law and regret, against counting and sampling."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reproductions import d2_kinetics as d2
from benchmarks.reproductions import d5_ttspm as d5
from benchmarks.reproductions import d7_monkeys as d7
from benchmarks.reproductions import d8_mrt_regret as d8
from simtool.errors import InputError
from simtool.models.accuracy.power_law import CoverageLaw, fit_coverage
from simtool.models.accuracy.regret import cumulative_regret
from simtool.models.accuracy.saturation import Saturation
from simtool.models.accuracy.solve_rates import BetaRates, PassCounts, fit_beta, pass_at_k, read_pass_counts
from simtool.models.config import load_architecture
from simtool.models.kinetics import kinetics_shape


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_subsets(tries, data):
    solved, k = data.draw(st.integers(0, tries)), data.draw(st.integers(0, tries))
    subsets = list(combinations(range(tries), k))
    share = sum(any(one < solved for one in subset) for subset in subsets) / len(subsets)
    assert pass_at_k(np.array([tries]), np.array([solved]), k)[0] == pytest.approx(share, abs=1e-12)


def test_pass_at_k_has_no_bias():
    rng = np.random.default_rng(1)
    rates = BetaRates(alpha=0.5, beta=1.5)
    solved = rng.binomial(20, rng.beta(0.5, 1.5, 200_000))
    counts = PassCounts(tries=np.full(200_000, 20), solved=solved)
    for k in (1, 5, 20):
        assert counts.coverage(k) == pytest.approx(rates.coverage(k), abs=0.005)
    found = fit_beta(counts)
    assert (found.alpha, found.beta) == pytest.approx((0.5, 1.5), rel=0.03)
    with pytest.raises(InputError, match="k <= 20"):
        counts.coverage(21)


def test_quantiles_stand_for_the_beta():
    rates = BetaRates(alpha=0.7, beta=2.0)
    points = rates.rates(4000)
    assert points.mean() == pytest.approx(rates.mean, abs=1e-4)
    assert rates.above(np.array([0.1, 0.6])) == pytest.approx([(points > 0.1).mean(), (points > 0.6).mean()], abs=1e-3)
    assert (1 - (1 - points) ** 8).mean() == pytest.approx(rates.coverage(8), abs=1e-3)


@settings(deadline=None)
@given(st.floats(0.01, 1.0), st.floats(0.01, 0.9), st.floats(1e-4, 0.5))
def test_saturation_is_where_one_more_gains_too_little(ceiling, rate, least):
    law = Saturation(ceiling=ceiling, rate=rate)
    found = law.saturated_at(least)
    assert law.gain(found) <= least * (1 + 1e-9)
    assert found == 0 or law.gain(found - 1) > least * (1 - 1e-9)
    assert law.gain(found) == pytest.approx(law.success(found + 1) - law.success(found), abs=1e-12)
    assert d5.counted(law, least) == pytest.approx(found, abs=1 if abs(law.gain(found) / least - 1) < 1e-9 else 0)


def test_d5_counts_and_samples_agree():
    rng = np.random.default_rng(0)
    for ceiling, rate, least in d5.ROWS:
        law = Saturation(ceiling=ceiling, rate=rate)
        found = law.saturated_at(least)
        assert found == d5.counted(law, least)
        assert d5.sampled(law, found, rng) == pytest.approx(law.success(found), abs=0.006)


@given(st.floats(-5, -0.05), st.floats(-1.5, -0.05))
def test_a_power_law_is_found_again(a, b):
    law = CoverageLaw(a=a, b=b)
    k = [1, 7, 50]
    found = fit_coverage(k, [law.coverage(one) for one in k])
    assert (found.a, found.b) == pytest.approx((a, b), rel=1e-6)
    assert law.coverage(law.samples_for(0.7)) == pytest.approx(0.7)


def test_d7_meets_both_points_and_the_two_laws_agree_between_them():
    for points in d7.PUBLISHED.values():
        law, rates = fit_coverage(*zip(*points, strict=True)), d7.beta_through(points)
        for k, share in points:
            assert law.coverage(k) == pytest.approx(share, abs=1e-9)
            assert rates.coverage(k) == pytest.approx(share, abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_regret_is_a_running_sum_and_never_falls_under_the_best(reached):
    found = cumulative_regret(max(reached), reached)
    assert (np.diff(found, prepend=0.0) >= -1e-12).all()
    assert found[-1] == pytest.approx(len(reached) * max(reached) - sum(reached), abs=1e-9)


def test_d8_is_its_closed_form():
    reached = d8.chains()
    assert cumulative_regret(d8.LAW.ceiling, reached["progress"])[-1] == pytest.approx(d8.closed_form(d8.EPISODES))
    assert cumulative_regret(d8.LAW.ceiling, reached["best"])[-1] == 0.0


def test_d2_rows_have_a_solution_with_the_catalogue_s_model():
    shape = kinetics_shape(load_architecture("qwen3-8b"))
    assert (shape.query_elements, shape.kv_elements) == (36 * 32 * 128, 36 * 8 * 128)
    question = d2.solve(shape)
    cost = shape.cost(question.prompt, question.generated, budget=d2.BUDGET)
    assert (cost.compute_flops, cost.memory_flops) == pytest.approx(d2.PUBLISHED, rel=1e-9)
    assert 0 < question.prompt < d2.BUDGET


@given(st.integers(0, 300), st.integers(1, 300), st.integers(1, 5))
def test_dense_attention_reads_every_earlier_token_and_prompts_are_shared(prompt, generated, samples):
    shape = kinetics_shape(load_architecture("qwen3-0.6b"))
    read = sum(prompt + i - 0.5 for i in range(1, generated + 1))
    cost = shape.cost(prompt, generated, samples)
    assert cost.compute_flops == pytest.approx(
        samples * (2 * shape.parameters * generated + 4 * read * shape.query_elements)
    )
    alone = shape.cost(prompt, generated).memory_flops
    assert cost.memory_flops <= samples * alone * (1 + 1e-12)
    assert shape.cost(prompt, generated, budget=10**6).total_flops == shape.cost(prompt, generated).total_flops


def test_kinetics_refuses_other_mixers():
    with pytest.raises(InputError, match="other mixers"):
        kinetics_shape(load_architecture("deepseek-v3"))


def test_a_csv_of_pass_counts_is_read_and_checked(tmp_path):
    good = tmp_path / "good.csv"
    good.write_text("question,tries,solved\na,4,1\nb,4,4\n")
    assert read_pass_counts(str(good)).coverage(1) == pytest.approx(0.625)
    for text, rule in (
        ("question,n,c\na,4,1\n", "other columns"),
        ("question,tries,solved\na,4,x\n", "whole numbers"),
        ("question,tries,solved\na,4\n", "whole numbers"),
        ("question,tries,solved\na,4,5\n", "solved <= tries"),
        ("question,tries,solved\n", "row a question"),
    ):
        bad = tmp_path / "bad.csv"
        bad.write_text(text)
        with pytest.raises(InputError, match=rule):
            read_pass_counts(str(bad))
    with pytest.raises(InputError, match="readable"):
        read_pass_counts(str(tmp_path / "absent.csv"))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Saturation(ceiling=0.0, rate=0.5),
        lambda: Saturation(ceiling=0.5, rate=0.5).saturated_at(0.0),
        lambda: BetaRates(alpha=0.0, beta=1.0),
        lambda: fit_coverage([1], [0.5]),
        lambda: fit_coverage([1, 2], [0.5, 1.0]),
        lambda: fit_coverage([1, 2], [0.5, 0.4]),
        lambda: CoverageLaw(a=-1, b=-1).samples_for(1.0),
        lambda: cumulative_regret(2.0, [0.5]),
        lambda: cumulative_regret([0.5, 0.5], [0.5]),
        lambda: fit_beta(PassCounts(tries=np.array([1]), solved=np.array([1]))),
        lambda: fit_beta(PassCounts(tries=np.array([4, 4]), solved=np.array([2, 2]))),
    ],
)
def test_bad_questions_are_refused(ask):
    with pytest.raises(InputError):
        ask()
