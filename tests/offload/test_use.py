"""OffloadUse drawn: bins, sections and curves hold what the steps did, of a walk or of a serving run."""

import numpy as np
import pytest

from simtool.offload_use import OffloadUse
from simtool.report.offload_figures import SpeedPoint, offload_bins, speed_figure
from simtool.report.offload_section import offload_section, offload_words, speed_section
from simtool.report.shell import page_html
from simtool.simulator.offload.store import expert_store
from simtool.simulator.offload.use import walk_use
from simtool.simulator.offload.walk import walk
from tests.offload.making import POLICIES, mistaken, priced, routed
from tests.report.browser import CHROMIUM, drawn


def use_of(steps=40, seconds=2.0, gap=0.0):
    start = np.arange(steps) * (seconds + gap)
    return OffloadUse(
        start_s=start,
        end_s=start + seconds,
        needed=np.full(steps, 10),
        hits=np.arange(steps) % 11,
        loads=np.full(steps, 3),
        cpu=np.zeros(steps, np.int64),
        stall_s=np.tile([0.5, 0.25, 0.0], (steps, 1)),
        link_busy_s=np.full(steps, 1.0),
        layer_needed=np.array([steps * 5, steps * 5, 0]),
        layer_hits=np.array([steps, 0, 0]),
    )


def test_a_walk_is_a_use_with_the_same_totals():
    needs = routed(0, steps=12, locality=0.5)
    store = expert_store(3, 6, 100, 2, staging=2)
    done = walk(store, POLICIES["speculative"], needs, priced(3, 6), guess=mistaken(needs, 1, 6))
    use = walk_use(done)
    assert use.hit_rate == done.hit_rate
    assert use.layer_hits.sum() == use.hits.sum() == done.total("hits")
    assert use.loads.sum() == done.total("loads")
    assert use.busy_s == pytest.approx(done.makespan_s)
    assert use.stalled_share == pytest.approx(done.stall_s.sum() / done.makespan_s)
    assert 0 < use.link_share <= 1


def test_bins_keep_what_steps_did():
    bins = offload_bins(use_of(), most=5)
    assert len(bins.at_s) == 5
    assert bins.hit_rate.mean() == pytest.approx((np.arange(40) % 11).mean() / 10)  # equal steps, equal bins
    assert bins.link_share == pytest.approx(np.full(5, 0.5))
    assert bins.stalled == pytest.approx(np.tile([0.25, 0.125, 0.0], (5, 1)))
    idle = offload_bins(use_of(steps=8, seconds=1.0, gap=100.0), most=100)
    assert len(idle.at_s) == 2  # few steps, few spans


def test_a_section_of_any_use_has_three_figures_and_tells_its_numbers():
    figures = {}
    text = offload_section(use_of(), figures, layers=(3, 4, 9), name="x")
    assert sorted(figures) == ["figure-x-hits", "figure-x-layers", "figure-x-stalls"]
    assert "37.5%" in text
    assert "50.0%" in text
    empty = use_of(steps=0)
    assert offload_section(empty, figures) == ""
    assert "none needed" in offload_words(empty)


def test_the_curve_has_a_line_a_policy_and_hollow_points_that_do_not_fit():
    rows = [(name, slots * 1e9, slots == 1) for name in ("a", "b") for slots in (2, 1)]
    points = [SpeedPoint(name=n, label=n, hbm_bytes=b, tokens_per_s=1.0, fits=fits) for n, b, fits in rows]
    first, second = speed_figure(points).data
    assert list(first.x) == [1.0, 2.0]
    assert list(second.marker.symbol) == ["circle", "circle-open"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_a_section_on_any_page(tmp_path):
    figures = {}
    points = [SpeedPoint(name="lru", label="lru,slots=2", hbm_bytes=1e9, tokens_per_s=3.0)]
    body = offload_section(use_of(), figures) + speed_section(points, figures, "Memory.")
    dom = drawn(page_html("A run", body, figures, ""), tmp_path)
    assert 'data-errors=""' in dom
    assert 'data-plots="4"' in dom
