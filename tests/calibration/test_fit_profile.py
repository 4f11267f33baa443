"""Measurements to a profile file: same data and seed, same bytes; what is loaded prices as what was fitted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simtool.calibration.fit_profile import (
    error_line,
    fit_set,
    fit_table,
    profile_name,
    profile_table,
    refusals,
    write_profile,
)
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.measurements import Measurements, Refusal
from simtool.calibration.peaks import peaks_of, reached_peaks
from simtool.errors import InputError
from simtool.hardware.device import load_device
from simtool.hardware.fitted_process import GaussianProcess
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.profile_file import read_profile
from tests.calibration.test_process_fit import calibration as synthetic
from tests.hardware.own_profile import BANDWIDTH, PEAK, all_reduces, rows, skewed, write_small


def calibration(noise: float, seed: int = 0) -> Measurements:
    return synthetic(noise, seed, sizes=10)


def measured(**parts: object) -> MeasuredSet:
    whole = MeasuredSet(device="h200", library="vllm", version="1", source="made up", tables=(calibration(0.03),))
    return replace(whole, **parts)


def written(path: Path, given: MeasuredSet, seed: int = 0) -> Path:
    write_profile(profile_table(given, fit_set(given, seed=seed, tell=lambda _: None), command="test"), path)
    return path


def test_same_points_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (written(tmp_path / f"{n}.json", measured()).read_bytes() for n in "ab")
    assert first == second
    assert first != written(tmp_path / "c.json", measured(tables=(calibration(0.03, seed=1),))).read_bytes()


def test_what_is_loaded_is_what_was_fitted(tmp_path: Path) -> None:
    given = measured()
    (fitted,) = fit_set(given, seed=0, tell=lambda _: None)
    loaded = read_profile(written(tmp_path / "p.json", given)).fits["gemm", "bf16"]
    assert isinstance(loaded.residual, GaussianProcess)
    terms = FAMILY_TERMS["gemm"]
    dims = {"m": np.array([3.0, 700.0]), "n": np.array([1280.0, 4096.0]), "k": np.array([8192.0, 4096.0])}
    asked = replace(fitted.rows, dims=dims, seconds=np.ones(2), lines=np.arange(2), spread=np.zeros(2))
    law = np.log(loaded.law.seconds(terms.work(dims, "bf16"), loaded.peak_flops, loaded.bandwidth_bytes_per_s))
    assert law + loaded.residual.evaluate(terms.features(dims))[0] == pytest.approx(fitted.fit.log_seconds(asked))
    assert loaded.errors == fitted.fit.errors


def test_few_points_are_stored_whole(tmp_path: Path) -> None:
    given = measured()
    kept = read_profile(written(tmp_path / "few.json", given)).points["gemm", "bf16"]
    assert kept.seconds == pytest.approx(given.tables[0].seconds, rel=1e-4)
    assert kept.dims["m"].tolist() == given.tables[0].dims["m"].tolist()


def test_too_few_points_are_left_out_and_said(tmp_path: Path) -> None:
    told: list[str] = []
    few = calibration(0.03).take(np.arange(4))
    given = measured(tables=(few,), collectives=(all_reduces(1e-11, 8),))
    fits = fit_set(given, seed=0, tell=told.append)
    assert fits == []
    assert told == ["gemm/bf16: 4 points are too few, left out"]
    write_profile(profile_table(given, fits, command="test"), tmp_path / "p.json")
    assert len(read_profile(tmp_path / "p.json").curves) == 1
    with pytest.raises(InputError, match="too few points for any fit"):
        profile_table(measured(tables=(few,)), [], command="test")


def test_five_equal_points_are_a_law_without_surprises() -> None:
    five = calibration(0.0).take(np.zeros(5, dtype=np.intp))
    fit = fit_table(five, peaks_of("h200", ()), 0).fit
    assert fit.log_seconds(five) == pytest.approx(np.log(five.seconds), abs=0.05)


def test_a_step_table_has_no_law_and_is_passed_over() -> None:
    step = replace(calibration(0.0), family="step", dims={"prompt": np.ones(66)})
    assert fit_set(measured(tables=(step,)), seed=0, tell=lambda _: None) == []


def test_the_error_line_says_held_out_beside_noise() -> None:
    told: list[str] = []
    (fitted,) = fit_set(measured(), seed=0, tell=told.append)
    assert told == [error_line(fitted)]
    assert told[0].startswith("gemm/bf16: 66 points, held out ")
    assert ", noise " in told[0]


@pytest.mark.parametrize("skew", [0.0, 0.35, 1.0])
def test_skew_is_recovered_from_unequal_batches(tmp_path: Path, skew: float) -> None:
    profile = read_profile(write_small(tmp_path / "p.json", families=("attention_decode",), skew=skew))
    assert profile.fits["attention_decode", "bf16"].skew == pytest.approx(skew, abs=0.05)


def test_skew_that_does_not_help_is_not_kept() -> None:
    equal = rows("attention_decode", "bf16", 1.0)
    same = replace(skewed(equal, 0.5), seconds=equal.seconds)  # the longest sequence costs nothing
    given = measured(tables=(equal, same))
    assert fit_set(given, seed=0, tell=lambda _: None)[0].fit.skew == pytest.approx(0.0, abs=0.01)


def test_unequal_batches_alone_give_their_equal_ones_to_the_fit() -> None:
    equal = rows("attention_decode", "bf16", 1.0)
    longest = np.where(np.arange(25) % 2 == 0, equal.dims["kv_len"], 4 * equal.dims["kv_len"])
    mixed = replace(equal, dims={**equal.dims, "kv_max": longest})
    (fitted,) = fit_set(measured(tables=(mixed,)), seed=0, tell=lambda _: None)
    assert len(fitted.rows.seconds) == 13
    assert "kv_max" not in fitted.rows.dims


def test_peaks_are_the_catalogues_or_what_was_reached() -> None:
    named = peaks_of("h200", ())
    device = load_device("h200")
    assert named.peak_flops("bf16") == device.flops["bf16"]
    assert named.hbm_bytes_per_s == device.hbm_bytes_per_s
    assert peaks_of("h200-sxm", ()).source in ("catalogue: h200", "reached by the tables")
    reached = peaks_of("a-chip-of-our-own", (calibration(0.0),))
    assert reached.source == "reached by the tables"
    assert 0.5 * PEAK < reached.peak_flops("bf16") < PEAK
    assert 0.5 * BANDWIDTH < reached.hbm_bytes_per_s < BANDWIDTH
    assert reached.peak_flops("fp8") == reached.peak_flops("bf16")
    assert reached_peaks(()).hbm_bytes_per_s > 0


def test_the_file_name_is_plain_whatever_the_device_is_called() -> None:
    assert profile_name(measured(device="../x y", version="")) == "..-x-y__vllm__unknown.json"


def test_every_refused_row_has_a_line() -> None:
    table = replace(calibration(0.0), refused=(Refusal(line=7, reason="is wrong"),))
    assert list(refusals(measured(tables=(table,)))) == ["synthetic: line 7 refused: is wrong"]
