"""The calibration report: what it says is what the profile says, and a browser draws it offline."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from simtool.calibration.collective_samples import Samples
from simtool.calibration.fit_profile import fit_table, profile_table, write_profile
from simtool.calibration.measured_set import Contention, HostTime, MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.calibration.peaks import peaks_of
from simtool.errors import InputError
from simtool.hardware.fitted_process import GaussianProcess
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.profile_file import load_shipped_profiles, read_profile
from simtool.hardware.roofline import RooflineLaw
from simtool.report.calibration_needs import needs_of
from simtool.report.calibration_page import NO_POINTS, calibration_page, write_calibration_report
from simtool.report.calibration_points import left_out, points_of
from simtool.report.calibration_sentence import held_out
from simtool.report.calibration_tables import errors_table
from simtool.report.calibration_wording import flags
from tests.report.browser import CHROMIUM, drawn, own_text

LAW = RooflineLaw(launch_s=4e-6, compute_efficiency=0.72, memory_efficiency=0.83, exponent=1.8)
SECTIONS = (
    "How wrong the predictions are", "Predicted against measured", "Error distributions", "Roofline", "Interference",
    "Copies and collectives", "Host and launch times", "Where more points would help", "Machine and provenance",
)  # fmt: skip


def rows_of(family, dims, bend):
    """Rows of the law times exp(bend) and 2% noise, each tenth one twice."""
    rng = np.random.default_rng(5)
    again = np.concatenate([np.arange(len(bend)), np.arange(0, len(bend), 10)])
    dims = {name: column[again] for name, column in dims.items()}
    seconds = LAW.seconds(FAMILY_TERMS[family].work(dims, "bf16"), 989.4e12, 4.8e12)
    seconds = seconds * np.exp(bend[again] + 0.02 * rng.standard_normal(len(again)))
    lines = np.arange(len(again)) + 2
    return Measurements(
        family=family, dtype="bf16", dims=dims, seconds=seconds, lines=lines, table="law", kernels=("<b>",)
    )


def samples_of(kind, ranks=1):
    size = 4.0 ** np.arange(6, 14)
    return Samples(
        kind=kind, library="torch", ranks=ranks, size_bytes=size, seconds=8e-6 + size / 5e10, source="synthetic"
    )


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    rng = np.random.default_rng(4)
    m, n, k = (np.round(2.0 ** rng.uniform(low, high, 60)) for low, high in ((0, 13), (8, 14), (8, 14)))
    moved = np.geomspace(1e4, 1e9, 20).round()
    tables = (
        rows_of("gemm", {"m": m, "n": n * 8, "k": k * 8}, 0.3 * np.sin(np.log2(m))),
        rows_of("elementwise", {"bytes": moved, "kind": np.zeros(20)}, np.zeros(20)),
    )
    measured = MeasuredSet(
        device="h200", library="torch", version="9.9", source="synthetic", machine={"date": "2026-01-02"},
        copies=(samples_of("h2d_pinned"), samples_of("hbm")), collectives=(samples_of("all_reduce", 2),),
        contention=(
            Contention(first="gemm", second="hbm_copy", first_alone_s=2e-4, second_alone_s=1e-4,
                       first_together_s=2.5e-4, second_together_s=2e-4),
        ),
        host=(HostTime(name="eager_launch", seconds=4.25e-6, spread=0.03),),
    )  # fmt: skip
    fits = [fit_table(rows, peaks_of("h200", ()), 0) for rows in tables]
    path = tmp_path_factory.mktemp("profile") / "h200.json"
    write_profile(profile_table(measured, fits, command="simtool calibrate"), path)
    return read_profile(path)


@pytest.fixture(scope="module")
def page(profile):
    return calibration_page([profile])


@pytest.fixture(scope="module")
def shipped():
    return next(p for p in load_shipped_profiles() if (p.device, p.library) == ("h200", "vllm"))


def numbers_in(value):
    """All arrays that plotly packs in base64, wherever in a figure."""
    if isinstance(value, dict) and set(value) >= {"dtype", "bdata"}:
        yield np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(part)


def figures_of(page):
    found = re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', page, flags=re.S)
    return {name: json.loads(text, parse_constant=pytest.fail) for name, text in found}  # a NaN is a constant


def test_every_section_and_figure_of_a_whole_profile_is_there(page):
    assert [heading for heading in SECTIONS if f"<h2>{heading}</h2>" not in page] == []
    names = {name.removeprefix("figure-p0-") for name in figures_of(page)}
    wanted = {"glance", "scatter-gemm", "scatter-elementwise", "distribution", "roofline", "bandwidth"}
    assert names == wanted | {"interference", "copies", "collectives", "needs-0"}


def test_the_sentence_answers_how_good_it_is(page, profile):
    said = re.search(r"<h1>.*?</header>", page, flags=re.S).group()
    assert "H200 with torch 9.9" in said
    assert f"within {100 * held_out(profile):.1f}%" in said
    assert "measured 2026-01-02" in said
    assert "<strong>88 points</strong>" in said


def test_the_table_holds_the_errors_of_the_profile(profile):
    html = errors_table(profile)
    for fit, row in zip(profile.fits.values(), re.findall(r"<tr class=.*?</tr>", html), strict=True):
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
        e = fit.errors
        assert cells[1:3] == [fit.dtype, str(e.in_sample_points)]
        shown = [float(part) / 100 for cell in cells[3:7] for part in cell.rstrip("%").split(" / ")]
        stored = (
            e.in_sample_median, e.in_sample_p95, e.held_out_median, e.held_out_p95, e.law_only_median, e.law_only_p95,
            e.noise_median, e.noise_p95,
        )  # fmt: skip
        assert shown == pytest.approx(stored, rel=0.05)
        assert cells[7] == f"{100 * e.coverage_90:.0f}%"


def test_what_is_out_of_bounds_is_flagged(profile):
    errors = profile.fits["gemm", "bf16"].errors
    sound = replace(errors, held_out_median=0.02, noise_points=6, noise_median=0.0101, coverage_90=0.9)
    assert flags(sound) == []
    assert flags(replace(sound, held_out_median=0.03)) == ["3.0 × noise"]
    assert flags(replace(sound, noise_points=0, held_out_median=0.5)) == []
    assert flags(replace(sound, coverage_90=0.84)) == ["interval too narrow"]
    assert flags(replace(sound, coverage_90=0.96)) == ["interval too wide"]


def test_left_out_points_are_those_of_a_process_without_them():
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 8, (12, 2)).round()
    points[7] = points[2]  # a repeat, which leaves with its twin
    target = rng.standard_normal(12)
    shape = {"scales": np.array([3.0, 2.0]), "signal": 0.5, "noise": 0.1}
    error, deviation = left_out(GaussianProcess(points=points, target=target, **shape))
    for row in range(12):
        kept = ~np.all(points == points[row], axis=1)
        mean, wide = GaussianProcess(points=points[kept], target=target[kept], **shape).predict(points[row : row + 1])
        assert error[row] == pytest.approx(target[row] - mean[0])
        assert deviation[row] == pytest.approx(wide[0])


def test_the_scatter_shows_left_out_predictions_and_says_so(profile, page):
    gemm = next(part for part in points_of(profile) if part.fit.family == "gemm")
    assert gemm.left_out
    error, _ = left_out(gemm.fit.residual)
    assert np.log(gemm.measured_s / gemm.predicted_s) == pytest.approx(error)
    seen = np.log(gemm.measured_s) - np.log(
        gemm.fit.law.seconds(FAMILY_TERMS["gemm"].work(gemm.dims, "bf16"), 989.4e12, 4.8e12)
    ) - gemm.fit.residual.predict(gemm.fit.residual.points)[0]  # fmt: skip
    assert np.abs(error).mean() > np.abs(seen).mean()
    assert "leave-one-out" in page


def test_spots_are_inside_the_box_and_each_is_worth_less_than_the_one_before(profile):
    gemm = next(part for part in points_of(profile) if part.fit.family == "gemm")
    needs = needs_of(gemm)
    deviations = [spot.deviation for spot in needs.spots]
    assert len(deviations) == 10
    assert deviations == sorted(deviations, reverse=True)
    assert deviations[0] == pytest.approx(needs.deviation.max())
    for spot in needs.spots:
        assert all(gemm.dims[name].min() <= value <= gemm.dims[name].max() for name, value in spot.dims.items())


def test_measuring_a_spot_leaves_the_deviation_that_was_foretold(profile):
    gemm = next(part for part in points_of(profile) if part.fit.family == "gemm")
    process, (first, second, *_) = gemm.fit.residual, needs_of(gemm).spots
    terms = FAMILY_TERMS["gemm"]
    at = [terms.features({n: np.array([v]) for n, v in spot.dims.items()}) for spot in (first, second)]
    at = [np.clip(f, process.points.min(axis=0), process.points.max(axis=0)) for f in at]
    more = replace(process, points=np.vstack([process.points, at[0]]), target=np.append(process.target, 0.0))
    assert more.predict(at[1])[1][0] == pytest.approx(second.deviation)


def test_a_profile_without_points_says_so_and_keeps_its_tables(shipped):
    shipped = replace(shipped, points={})
    page = calibration_page([shipped])
    assert page.count(NO_POINTS) == 2
    names = {name.removeprefix("figure-p0-") for name in figures_of(page)}
    assert names == {"glance", "roofline"}
    assert all(f"<td>{fit.table}</td>" in page for fit in shipped.fits.values())
    assert "Error distributions" not in page
    assert "Interference" not in page


def test_a_profile_of_curves_alone_has_a_page(profile):
    page = calibration_page([replace(profile, fits={}, points={})])
    assert "no kernel fit" in page
    assert "Predicted against measured" not in page
    assert "NaN" not in own_text(page)


def test_several_profiles_share_a_page_and_none_is_an_error(profile, shipped):
    page = calibration_page([profile, shipped])
    assert "2 kernel profiles" in page
    assert {name.split("-")[1] for name in figures_of(page)} == {"p0", "p1"}
    with pytest.raises(InputError, match="no profile"):
        calibration_page([])


def test_the_page_is_whole_in_itself_and_without_nan(page):
    own = own_text(page)
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", own)
    assert not re.search("https?:/", own)
    assert "nan" not in re.sub("<[^>]*>", " ", own).lower().split()
    assert "NaN" not in own
    packed = [array for figure in figures_of(page).values() for array in numbers_in(figure)]
    assert len(packed) > 10
    assert all(np.isfinite(array).all() for array in packed)


def test_text_of_a_profile_cannot_break_the_page(profile):
    evil = '"><script>alert(1)</script>'
    fits = {key: replace(fit, note=evil) for key, fit in profile.fits.items()}
    machine = {"date": evil, evil: evil}
    bad = replace(
        profile, device=evil, library=evil, version=evil, source=evil, command=evil, fits=fits, machine=machine
    )
    assert "<script>alert" not in calibration_page([bad])


def test_the_report_is_written_whole(profile, page, tmp_path):
    path = tmp_path / "calibration.html"
    write_calibration_report([profile], path)
    assert path.read_text(encoding="utf-8") == page
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_every_figure_without_an_error(page, tmp_path):
    dom = drawn(page, tmp_path)
    wanted = page.count('class="plot"')
    assert wanted == 10
    assert 'data-errors=""' in dom
    assert f'data-plots="{wanted}"' in dom
    assert len(re.findall(r'class="plot js-plotly-plot"', dom)) == wanted
    assert "heatmaplayer" in dom
    assert "boxlayer" in dom
