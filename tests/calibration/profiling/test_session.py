"""A profiling session on a device without hardware: shares, repeats, sentinels, resuming, interruption."""

import itertools
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from simtool.calibration.points import Sentinel, Skipped, TimedPoint
from simtool.calibration.points_file import read_journal
from simtool.calibration.profiling.planning import WEIGHTS
from simtool.calibration.profiling.request import ProfileRequest
from simtool.calibration.profiling.request_text import parsed_request
from simtool.calibration.profiling.session import profile_machine
from simtool.errors import InputError
from tests.calibration.profiling.fake_bench import BANDWIDTH, LAUNCH_S, PEAK, POINT_COST_S, FakeBench

REQUEST = ProfileRequest(
    device="cpu",
    budget_s=30.0,
    models=("deepseek-v2-lite", "qwen3-0.6b"),
    tp=(8,),
    families=("gemm", "moe", "attention_decode", "elementwise", "host", "copies"),
    seed=3,
)


def profiled(path, bench, request=REQUEST):
    notes = []
    return profile_machine(request, path, bench=bench, tell=notes.append, now=bench.now), notes


def points(path):
    return [written.row for written in read_journal(path).rows if isinstance(written.row, TimedPoint)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path, bench = tmp_path_factory.mktemp("whole") / "points.jsonl", FakeBench()
    found, _ = profiled(path, bench)
    return path, bench, found


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copy(whole[0], tmp_path / "points.jsonl")


def test_the_budget_is_kept_and_used(whole):
    _, bench, _ = whole
    assert REQUEST.budget_s - 1.0 <= bench.clock_s - 100.0 <= REQUEST.budget_s + POINT_COST_S


def test_times_are_those_of_the_device(whole):
    gemm = next(table for table in whole[2].tables if table.family == "gemm")
    m, n, k = (gemm.dims[name] for name in ("m", "n", "k"))
    np.testing.assert_allclose(
        gemm.seconds, LAUNCH_S + 2 * m * n * k / PEAK + 2 * (m * k + n * k + m * n) / BANDWIDTH, rtol=1e-12
    )


def test_every_family_gets_its_share(whole):
    counts = Counter(row.point.family for row in points(whole[0]))
    total = sum(WEIGHTS[family] for family in counts)
    assert set(counts) == {"gemm", "moe", "attention_decode", "elementwise"}
    for family, count in counts.items():
        assert count == pytest.approx(WEIGHTS[family] / total * sum(counts.values()), rel=0.35), family


def test_about_a_tenth_is_measured_twice_and_nothing_thrice(whole):
    counts = Counter(row.point.key for row in points(whole[0]))
    assert set(counts.values()) == {1, 2}
    share = sum(count - 1 for count in counts.values()) / counts.total()
    assert 0.08 <= share <= 0.2


def test_a_sentinel_stands_every_twenty_rows(whole):
    rows = [written.row for written in read_journal(whole[0]).rows]
    places = [index for index, row in enumerate(rows) if isinstance(row, Sentinel)]
    assert places[0] == 0
    assert np.diff(places).max() <= 22
    assert len(places) >= len(rows) // 22


def test_families_are_interleaved(whole):
    families = [row.point.family for row in points(whole[0])]
    changes = sum(left != right for left, right in itertools.pairwise(families))
    assert changes > len(families) / 3


def test_ctrl_c_keeps_what_was_measured_and_a_rerun_goes_on(tmp_path):
    path, first = tmp_path / "points.jsonl", FakeBench(interrupt_at=40)
    found, notes = profiled(path, first)
    assert found.machine["interrupted"] == "yes"
    assert any("interrupted" in note for note in notes)
    assert [row.point.key for row in points(path)] == [point.key for point in first.measured]
    spent_s = read_journal(path).spent_s

    second = FakeBench()
    found, _ = profiled(path, second)
    assert "interrupted" not in found.machine
    assert len(points(path)) == 40 + len(second.measured)
    assert max(Counter(row.point.key for row in points(path)).values()) == 2
    assert second.clock_s - 100.0 == pytest.approx(REQUEST.budget_s - spent_s, abs=1.5)
    copies = [samples.size_bytes.tolist() for samples in found.copies]
    assert copies == [[1024.0, 4096.0]]
    assert len(found.host) == 1


def test_a_spent_budget_measures_nothing_more(copied):
    bench = FakeBench()
    profiled(copied, bench)
    assert len(bench.measured) <= 1


def test_a_larger_budget_goes_on(copied):
    bench = FakeBench()
    profiled(copied, bench, replace(REQUEST, budget_s=35.0))
    assert 30 <= len(bench.measured) <= 50


@pytest.mark.parametrize("change", [{"seed": 4}, {"tp": (4,)}, {"models": ("qwen3-0.6b",)}, {"dtypes": ("fp32",)}])
def test_another_request_is_refused(whole, change):
    before = whole[0].read_bytes()
    with pytest.raises(InputError, match="was begun with"):
        profiled(whole[0], FakeBench(), replace(REQUEST, **change))
    assert whole[0].read_bytes() == before


def test_what_does_not_fit_is_skipped_once_with_its_reason(tmp_path):
    path = tmp_path / "points.jsonl"
    bench = FakeBench(too_large=lambda point: point.dims.get("m", 0) > 500)
    request = replace(REQUEST, dtypes=("bf16", "fp8"), budget_s=15.0)
    _, notes = profiled(path, bench, request)
    skips = [written.row for written in read_journal(path).rows if isinstance(written.row, Skipped)]
    subjects = [skip.subject for skip in skips]
    assert len(subjects) == len(set(subjects))
    assert {"gemm/fp8", "moe/fp8"} <= set(subjects)
    large = [skip for skip in skips if skip.subject.startswith("gemm bf16")]
    assert large
    assert all(skip.reason == "out of memory" for skip in large)
    assert any("out of memory" in note for note in notes)
    assert all(row.point.dims.get("m", 0) <= 500 for row in points(path))

    profiled(path, FakeBench(too_large=lambda point: True), replace(request, budget_s=20.0))
    again = [w.row.subject for w in read_journal(path).rows if isinstance(w.row, Skipped)]
    assert len(again) == len(set(again))


def test_a_broken_device_ends_the_session(tmp_path):
    bench = FakeBench(too_large=lambda point: True)
    _, notes = profiled(tmp_path / "points.jsonl", bench, replace(REQUEST, families=("gemm",), budget_s=600.0))
    assert any("in a row failed" in note for note in notes)
    assert bench.clock_s - 100.0 < 10.0


@pytest.mark.parametrize(
    "change",
    [
        {"budget_s": 0.0},
        {"budget_s": float("nan")},
        {"families": ()},
        {"families": ("gem",)},
        {"dtypes": ("bf8",)},
        {"tp": (0,)},
        {"seed": -1},
        {"device": "tpu"},
    ],
)
def test_a_senseless_request_is_refused(change):
    with pytest.raises(InputError):
        replace(REQUEST, **change)


def test_flags_become_a_request():
    request = parsed_request(
        budget="4m", device="cpu", models="qwen3-0.6b, llama-3.1-8b", tp="1,8", dtypes="bf16", families="gemm", seed=2
    )
    assert (request.budget_s, request.models, request.tp) == (240.0, ("qwen3-0.6b", "llama-3.1-8b"), (1, 8))
    assert (request.dtypes, request.families, request.seed) == (("bf16",), ("gemm",), 2)
    assert parsed_request(budget="90", device="cpu").budget_s == 90.0
    assert parsed_request(budget="0.5h", device="cpu").budget_s == 1800.0
    assert parsed_request(budget="90", device="cpu").tp_degrees == (8,)


@pytest.mark.parametrize("flags", [{"budget": "4 min"}, {"budget": "-4"}, {"tp": "1;8"}, {"device": "gpu"}])
def test_flags_that_say_nothing_are_refused(flags):
    with pytest.raises(InputError):
        parsed_request(**{"budget": "4m", "device": "cpu", **flags})
