"""The page of a validation draws all its figures offline, and what it says is what was found."""

import re
from dataclasses import replace

import numpy as np
import pytest

from simtool.calibration.validation.order import order_of
from simtool.calibration.validation.reading import of_execution, read_measurement
from simtool.calibration.validation.validate import validate
from simtool.report.validation_page import order_page, validation_page
from simtool.report.validation_rows import metric_value, metric_words, signed
from simtool.report.validation_sentence import blame, schedule_words, verdict
from simtool.report.validation_timeline import MOST_SLABS, slabs
from tests.report.browser import CHROMIUM, drawn, own_text
from tests.validation import results
from tests.validation.executions import Truth, execute, small_plan, small_workload


@pytest.fixture(scope="module")
def validation():
    truth = Truth(factors={"gemm": 1.2}, host_s=2e-3, jitter=0.02, seed=1)
    one, two = (execute(replace(truth, seed=seed), workload=small_workload(30, rate=40.0)) for seed in (1, 2))
    return validate(one.plan, of_execution(one, "run"), one.workload, again=of_execution(two, "again"), calibrate=True)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    path = results.write(tmp_path_factory.mktemp("v") / "r.json", results.vllm())
    measurement = read_measurement(path)
    return validate(small_plan(), measurement, measurement.workload)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_every_figure_without_an_error(validation, tmp_path):
    page = validation_page(validation)
    dom = drawn(page, tmp_path)
    assert page.count('class="plot"') == 6
    assert 'data-errors=""' in dom
    assert 'data-plots="6"' in dom
    assert len(re.findall(r'class="plot js-plotly-plot"', dom)) == 6
    for part in ("barlayer", "boxlayer", "scatterlayer"):
        assert part in dom


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_pages_of_a_client_s_run_and_of_an_order_are_drawn(client, tmp_path):
    names, order = ("a", "b"), order_of(("a", "b"), [1.0, 2.0], [1.1, 1.9], "output_throughput", 0.03)
    for number, (page, plots) in enumerate(
        ((validation_page(client), 3), (order_page(replace(order, names=names), [client, client]), 1))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        dom = drawn(page, folder)
        assert 'data-errors=""' in dom
        assert f'data-plots="{plots}"' in dom


def test_the_page_fetches_nothing_and_is_of_sensible_size(validation):
    own = own_text(validation_page(validation))
    assert len(own) < 2e6
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", own)
    assert not re.search("https?:/", own)


def test_text_from_elsewhere_cannot_break_the_page(validation):
    evil = "</script><script>alert(1)</script>"
    page = validation_page(replace(validation, tool=evil, source=evil, notes=(evil,), environment={"device": evil}))
    assert "<script>alert" not in page


def test_a_page_without_requests_has_neither_timelines_nor_dots(client):
    page = validation_page(replace(client, measured=None, aligned=False))
    for heading in ("Timelines", "Requests", "Steps", "Where the error comes from"):
        assert f"<h2>{heading}</h2>" not in page


def test_the_sentence_says_who_is_to_blame(validation):
    assert "mean TPOT -" in verdict(validation)
    assert "In the steps GEMM is off most: predicted less" in blame(validation)
    assert "met other batches" in blame(validation)
    assert "in all" in schedule_words(validation)
    diverged = replace(validation, divergence="step 3 of replica 0: …")
    assert "diverges at step 3" in schedule_words(diverged)
    assert "is not the measured one" in validation_page(diverged)


def test_a_process_of_a_cpu_is_no_gpu(validation):
    assert "of 1 GPU on H200" in validation_page(validation)
    pools = tuple(replace(pool, device="cpu") for pool in validation.plan.pools)
    page = validation_page(
        replace(validation, plan=replace(validation.plan, pools=pools, cluster="1xcpu"), cpus=("cpu",))
    )
    assert "one replica of 1 process on CPU" in page
    assert "GPU" not in own_text(page).replace("gpu_", "").replace("--gpu", "")


def test_a_long_timeline_is_joined_to_slabs(validation):
    steps = validation.measured.steps
    start = np.arange(20_000) * 1e-3
    long = {name: np.resize(column, 20_000) for name, column in steps.items()}
    long |= {"start_s": start, "end_s": start + 1e-3, "prefill_tokens": np.zeros(20_000)}
    x0, x1, _, _, whole = slabs(replace(validation.measured, steps=long))
    assert len(x0) < MOST_SLABS
    assert whole
    assert np.sum(x1 - x0) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("key", "words", "value", "text"),
    [
        ("p99_ttft_ms", "p99 TTFT", 1234.0, "1.23 s"),
        ("mean_e2el_ms", "mean end to end", 12.34, "12.3 ms"),
        ("output_throughput", "output tokens", 1234.5, "1,234 tok/s"),
        ("duration", "duration", 3.0, "3.00 s"),
        ("peak_kv_usage", "peak kv usage", 0.5, "0.500"),
    ],
)
def test_metrics_have_names_and_units(key, words, value, text):
    assert metric_words(key) == words
    assert metric_value(key, value) == text


def test_shares_have_signs():
    assert [signed(value) for value in (0.1234, -0.05, 1e-6, float("nan"))] == ["+12.3%", "-5.0%", "0.0%", "–"]
