"""Profile files: what is shipped loads, is small, says its errors, and damaged files are refused."""

import gzip
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.kernel_profile import KernelProfile
from simtool.hardware.profile_file import load_shipped_profiles, parse_profile, profile_bytes, read_profile
from tests.shared_data import SHARED, needs_shared

FOLDER = Path(str(files("simtool.hardware").joinpath("profiles")))
LIMIT_BYTES = 300_000


@pytest.fixture(scope="module")
def shipped() -> tuple[KernelProfile, ...]:
    return load_shipped_profiles()


def test_all_shipped_profiles_load_and_stay_small(shipped: tuple[KernelProfile, ...]) -> None:
    assert {p.device for p in shipped} >= {"h200", "a100-80g", "l40s", "rtx-4090", "rtx-pro-6000", "a40"}
    assert sum(path.stat().st_size for path in FOLDER.glob("*.json.gz")) < LIMIT_BYTES


def test_every_fit_states_its_source_and_its_errors(shipped: tuple[KernelProfile, ...]) -> None:
    for profile in shipped:
        for (family, dtype), fit in profile.fits.items():
            where = f"{profile.device}/{profile.library}/{family}/{dtype}"
            assert fit.table, where
            assert fit.errors.in_sample_points > 0, where
            assert 0 < fit.errors.in_sample_median <= fit.errors.in_sample_p95, where
            assert fit.errors.held_out_points > 0, where
            assert np.all(fit.intervals[:, 0] <= fit.intervals[:, 1]), where
            value, deviation, _ = fit.residual.evaluate(np.zeros((1, len(FAMILY_TERMS[family].names))))
            assert np.isfinite([value, deviation]).all(), where
            assert deviation > 0, where


def test_ninety_percent_intervals_cover_85_to_95_percent(shipped: tuple[KernelProfile, ...]) -> None:
    """Coverage is counted on rows that did not set the interval."""
    coverage = [fit.errors.coverage_90 for profile in shipped for fit in profile.fits.values()]
    assert 0.87 < np.median(coverage) < 0.93
    assert np.mean([0.85 <= share <= 0.95 for share in coverage]) > 0.8


def test_a_profile_written_and_read_is_the_same_bytes() -> None:
    for path in sorted(FOLDER.glob("*.json.gz"))[:2]:
        table = json.loads(gzip.decompress(path.read_bytes()))
        assert profile_bytes(table, packed=True) == path.read_bytes()


def shipped_table() -> dict:
    return json.loads(gzip.decompress(sorted(FOLDER.glob("*.json.gz"))[0].read_bytes()))


def test_damaged_profiles_are_refused(tmp_path: Path) -> None:
    good = shipped_table()
    whole = profile_bytes(good, packed=True)
    assert parse_profile(whole, "x").fits
    crooked = json.loads(json.dumps(good))
    next(fit for fit in crooked["fits"] if fit["residual"])["residual"]["factors"][0].pop()
    changed = [good | {"surprise": 1}, good | {"schema_version": 1}, good | {"device": 5}, crooked, {}]
    cut = [whole[:200], b"", b"text", b"[1]", b"[" * 100_000]
    for data in cut + [profile_bytes(table, packed=packed) for table in changed for packed in (True, False)]:
        with pytest.raises(InputError):
            parse_profile(data, "x.json.gz")
    with pytest.raises(InputError, match="cannot be read"):
        read_profile(tmp_path / "absent.json.gz")


def test_an_edited_number_breaks_the_checksum() -> None:
    text = profile_bytes(shipped_table(), packed=False).decode()
    edited = text.replace('"launch_s": ', '"launch_s": 1', 1)
    assert edited != text
    with pytest.raises(InputError, match="checksum"):
        parse_profile(edited.encode(), "x.json")


@needs_shared
@pytest.mark.shared
@pytest.mark.parametrize(("family", "dtype"), [("attention_decode", "bf16"), ("attention_prefill", "fp8")])
def test_recorded_errors_match_the_tables(shipped: tuple[KernelProfile, ...], family: str, dtype: str) -> None:
    """All rows, priced with what is shipped: the median error lies between the recorded two, to a tenth."""
    from simtool.calibration.aiconfigurator import find_tables, read_table
    from simtool.calibration.fit_family import predicted_log
    from simtool.hardware.device import load_device

    profile = next(p for p in shipped if (p.device, p.library) == ("h200", "trtllm"))
    fit = profile.fits[family, dtype]
    tables = {
        kind.family: (kind, path) for kind, path in find_tables(SHARED / "data/aiconfigurator", "h200_sxm", "trtllm")
    }
    kind, path = tables[family]
    rows = next(r for r in read_table(path, kind, load_device("h200")) if r.dtype == dtype)
    predicted, _ = predicted_log(fit.law, fit.residual, rows, fit.peak_flops, fit.bandwidth_bytes_per_s)
    error = np.log(rows.seconds) - predicted
    median = float(np.median(np.abs(np.expm1(-error))))
    recorded = sorted([fit.errors.in_sample_median, fit.errors.held_out_median])
    assert 0.9 * recorded[0] <= median <= 1.1 * recorded[1]
