"""Each metric against its definition."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.metrics import (
    PERCENTILES,
    Slo,
    flagged_percentiles,
    littles_law_gap,
    meets_slo,
    request_latencies,
    serving_metrics,
    slo_attainment,
    slo_attainment_by,
)
from tests.metrics.runs import random_run, run_of

runs = st.builds(random_run, st.integers(0, 2**32), st.integers(1, 80), warmup=st.just(0), refuse=st.booleans())


def test_two_requests_by_hand() -> None:
    run = run_of([1.0, 2.0], [0.5, 0.25], [[0.1, 0.3], [0.2]])
    metrics = serving_metrics(run)
    assert metrics["duration"] == pytest.approx(1.45)  # 2 + 0.25 + 0.2 - 1
    assert metrics["completed"] == 2
    assert metrics["total_output_tokens"] == 5
    assert metrics["request_throughput"] == pytest.approx(2 / 1.45)
    assert metrics["total_token_throughput"] == pytest.approx(205 / 1.45)
    assert metrics["output_throughput_per_gpu"] == pytest.approx(5 / 1.45 / 4)
    assert metrics["mean_ttft_ms"] == pytest.approx(375)
    assert metrics["mean_tpot_ms"] == pytest.approx(200)  # (0.4/2 + 0.2/1) / 2
    assert metrics["mean_itl_ms"] == pytest.approx(200)  # 0.6 / 3
    assert metrics["mean_e2el_ms"] == pytest.approx(675)
    assert metrics["energy_j_per_output_token"] == pytest.approx(200)
    assert metrics["prefix_hit_rate"] == pytest.approx(0.25)
    assert metrics["preemptions"] == 1
    assert metrics["max_concurrent_requests"] == 1  # the first is gone before the second comes
    assert metrics["max_output_tokens_per_s"] == pytest.approx(3)


@settings(deadline=None, max_examples=40)
@given(run=runs)
def test_laws(run) -> None:
    slo = Slo(ttft_s=0.3, tpot_s=0.02)
    metrics = serving_metrics(run, slo)
    assert metrics["completed"] + metrics["failed"] == len(run.sent_s)
    if not metrics["completed"]:
        return
    assert metrics["request_goodput"] <= metrics["request_throughput"]
    assert metrics["request_goodput"] * metrics["duration"] == pytest.approx(
        metrics["slo_attainment"] * len(run.sent_s)
    )
    for name in ("ttft", "tpot", "itl", "e2el"):
        tails = [metrics[f"p{percent}_{name}_ms"] for percent in PERCENTILES]
        if not math.isnan(tails[0]):
            assert tails == sorted(tails)
    assert metrics["mean_ttft_ms"] <= metrics["mean_e2el_ms"]
    assert metrics["max_concurrent_requests"] <= metrics["completed"]
    assert metrics["max_output_tokens_per_s"] <= metrics["total_output_tokens"] * (1 + 1e-9)
    assert littles_law_gap(run) < 1e-9


@settings(deadline=None, max_examples=30)
@given(run=runs)
def test_percentiles_are_numpys(run) -> None:
    e2e_s = run.finish_s - run.sent_s
    e2e_s = np.sort(e2e_s[np.isfinite(e2e_s)])
    if len(e2e_s):
        metrics = serving_metrics(run)
        for percent in PERCENTILES:
            assert metrics[f"p{percent}_e2el_ms"] == pytest.approx(np.percentile(e2e_s, percent) * 1e3)


def test_itl_percentiles_are_those_of_all_gaps_within_a_bin() -> None:
    random = np.random.default_rng(3)
    gaps = [random.gamma(2.0, 0.01, 50).tolist() for _ in range(200)]
    metrics = serving_metrics(run_of([0.0] * 200, [0.1] * 200, gaps))
    flat = np.concatenate(gaps) * 1e3
    assert metrics["mean_itl_ms"] == pytest.approx(flat.mean())
    assert metrics["std_itl_ms"] == pytest.approx(flat.std(), rel=0.005)
    for percent in PERCENTILES:
        assert metrics[f"p{percent}_itl_ms"] == pytest.approx(np.percentile(flat, percent), rel=0.006)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999))
def test_tokens_per_second_add_up(seed: int) -> None:
    from simtool.summaries import _tokens_per_second

    run = random_run(seed, 50)
    origin = run.sent_s.min()
    first, finish = run.first_token_s - origin, run.finish_s - origin
    tokens = _tokens_per_second(first, finish, (run.output_tokens - 1).astype(float), int(finish.max()) + 2)
    assert tokens.sum() == pytest.approx(run.output_tokens.sum())
    assert tokens.min() >= -1e-9


def test_one_token_answers_have_no_tpot_and_meet_its_limit() -> None:
    run = run_of([0.0, 1.0], [0.5, 0.5], [[], []])
    metrics = serving_metrics(run, Slo(tpot_s=0.01))
    assert math.isnan(metrics["mean_tpot_ms"])
    assert math.isnan(metrics["p99_itl_ms"])
    assert metrics["slo_attainment"] == 1.0
    assert np.isnan(request_latencies(run).tpot_s).all()


def test_refused_requests_fail_and_miss_the_slo() -> None:
    run = run_of([0.0, 0.0, 1.0, 1.0], [0.1] * 4, [[0.01]] * 4, refused=(1,))
    metrics = serving_metrics(run)
    assert (metrics["completed"], metrics["failed"]) == (3, 1)
    assert slo_attainment(run, Slo()) == 0.75
    assert not meets_slo(run, Slo(ttft_s=1.0, attainment=0.76))
    assert meets_slo(run, Slo(ttft_s=1.0, attainment=0.75))


def test_nothing_finished() -> None:
    run = run_of([0.0, 1.0], [0.1, 0.1], [[0.1], [0.1]], refused=(0, 1))
    metrics = serving_metrics(run, Slo(ttft_s=1.0))
    assert metrics["failed"] == 2
    assert metrics["slo_attainment"] == 0.0
    assert math.isnan(metrics["request_throughput"])
    assert not meets_slo(run, Slo())


def test_warmup_is_not_counted() -> None:
    run = run_of([0.0, 1.0, 2.0], [9.0, 0.5, 0.5], [[0.1], [0.1], [0.1]], warmup=1)
    metrics = serving_metrics(run)
    assert metrics["completed"] == 2
    assert metrics["mean_ttft_ms"] == pytest.approx(500)
    assert metrics["duration"] == pytest.approx(1.6)


def test_attainment_by_limit() -> None:
    run = run_of([0.0, 0.0], [0.1, 0.9], [[0.01], [0.09]])
    by = slo_attainment_by(run, Slo(ttft_s=0.5, tpot_s=0.05, e2e_s=5.0))
    assert by == {"all": 0.5, "ttft": 0.5, "tpot": 0.5, "e2el": 1.0}


def test_percentiles_of_too_few_requests_are_flagged() -> None:
    def flags(rows: int) -> set[str]:
        return set(flagged_percentiles(run_of([0.0] * rows, [0.1] * rows, [[0.1] * 10] * rows)))

    assert "p99_ttft_ms" not in flags(1000)
    assert "p99_ttft_ms" in flags(999)
    assert "p90_ttft_ms" not in flags(100)
    assert "p50_e2el_ms" in flags(19)
    assert "p99_itl_ms" not in flags(100)  # 1000 gaps


def test_peak_kv_use_is_relative_to_each_replica() -> None:
    steps = {"replica": np.array([0.0, 1.0]), "kv_blocks": np.array([50.0, 30.0])}
    run = replace(run_of([0.0], [0.1], [[0.1]]), steps=steps, kv_blocks=(100, 40))
    assert serving_metrics(run)["peak_kv_usage"] == 0.75
    assert math.isnan(serving_metrics(run_of([0.0], [0.1], [[0.1]]))["peak_kv_usage"])
