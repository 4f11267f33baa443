"""The page draws all its figures offline, without an error, in light and in dark."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from simtool.report.drawing import place, plan_drawing
from simtool.report.page import report_page
from simtool.report.ranking import plan_rows
from simtool.report.sentence import overload
from simtool.report.wording import devices_phrase, duration, number, plan_short
from simtool.timeline import timeline_events
from tests.report.browser import CHROMIUM, drawn, own_text
from tests.report.sample import sample_answer, sample_contents, sample_plan, sample_result


@pytest.fixture(scope="module")
def page():
    return report_page(sample_contents())


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_every_figure_without_an_error(page, tmp_path):
    dom = drawn(page, tmp_path)
    wanted = page.count('class="plot"')
    assert wanted == 7
    assert 'data-errors=""' in dom
    assert f'data-plots="{wanted}"' in dom
    assert len(re.findall(r'class="plot js-plotly-plot"', dom)) == wanted
    assert dom.count('class="main-svg"') >= wanted
    assert "scatterlayer" in dom
    assert "barlayer" in dom


def test_the_page_fetches_nothing_and_is_of_sensible_size(page):
    own = own_text(page)
    assert len(page) < 6e6
    assert len(own) < 5e5
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", own)
    assert not re.search("https?:/", own)


def test_text_from_elsewhere_cannot_break_the_page():
    from dataclasses import replace

    contents = sample_contents()
    evil = "</script><script>alert(1)</script>"
    contents = replace(contents, plan=replace(contents.plan, model=evil), facts={"model": evil, "workload": evil})
    assert "<script>alert" not in report_page(contents)


def test_the_page_of_a_single_run_has_no_choice():
    from dataclasses import replace

    page = report_page(replace(sample_contents(), answer=None, load=(), steps=()))
    assert "The choice" not in page
    assert "simulation report" in page


def test_every_rank_has_a_place_and_the_rest_is_idle():
    from simtool.hardware.cluster import parse_cluster

    plan, cluster = sample_plan(tp=2, pp=2, replicas=1), parse_cluster("8xh200")
    shards = place(plan, cluster, {0: ("L 0–39", "L 40–79")})
    assert [shard is None for shard in shards] == [False] * 4 + [True] * 4
    assert [shard.lines for shard in shards if shard] == [
        ("TP 0", "L 0–39"), ("TP 1", "L 0–39"), ("TP 0", "L 40–79"), ("TP 1", "L 40–79"),
    ]  # fmt: skip
    assert plan_drawing(plan, cluster, {}).count("idle") >= 4


def test_a_large_cluster_is_drawn_in_part():
    from simtool.hardware.cluster import parse_cluster

    html = plan_drawing(sample_plan(replicas=30), parse_cluster("40x8xh200"), {})
    assert "24 more nodes" in html
    assert html.count("<title>") == 16 * 8 - 8  # 30 replicas of 4 fill 15 nodes


def test_the_best_plan_comes_first_in_at_most_8_columns():
    heads, rows, best = plan_rows(sample_answer(), limit=5)
    assert len(heads) <= 8
    assert best == 0
    assert rows[0][0] == plan_short(sample_answer().best.plan)
    assert all(len(row) == len(heads) for row in rows)


def test_an_overloaded_run_says_so():
    calm = sample_result(200)
    assert overload(calm) == ""
    queued = replace(calm, scheduled_s=calm.sent_s + 0.5 * (calm.sent_s - calm.sent_s.min()))
    assert "faster than this plan serves them" in overload(queued)
    assert overload(replace(queued, sent_s=np.zeros(200))) == "", "requests sent at once have no rate to keep up with"


def test_plans_that_miss_the_slo_come_last_and_the_nearest_first():
    answer = sample_answer()
    shares = {"near": 0.9876, "far": 0.2}
    missed = [
        replace(
            answer.best, status="simulated", meets_slo=False, metrics={**answer.best.metrics, "slo_attainment": one}
        )
        for one in shares.values()
    ]
    answer = replace(answer, candidates=(*reversed(missed), answer.best))
    _, rows, _ = plan_rows(answer, limit=5)
    assert [row[-1] for row in rows] == ["met", "98.7%: missed", "20%: missed"]


def test_the_timeline_nests_and_is_in_microseconds():
    events = [json.loads(event) for event in timeline_events(sample_plan(), sample_result(20))]
    slices = [event for event in events if event["ph"] == "X"]
    assert slices[0]["dur"] == pytest.approx(0.04e6)
    assert {event["pid"] for event in slices} == {0, 1}
    opened = [event for event in events if event["ph"] == "b"]
    assert len(opened) == len([event for event in events if event["ph"] == "e"]) == 20 * 4
    assert all(event["ts"] >= 0 for event in events if "ts" in event)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12345.6, "12,346"),
        (1.234, "1.23"),
        (0.01234, "0.0123"),
        (float("nan"), "–"),
        (99.96, "100"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_words():
    assert duration(0.0123) == "12.3 ms"
    assert duration(4e-6) == "4.00 µs"
    assert devices_phrase("4xa100-80g+2x8xl4") == "4 × A100-80G + 2 × 8 × L4"
    assert devices_phrase("8xrtx-4090") == "8 × RTX-4090"
