"""Profile files: what is shipped loads, is small, says its errors, and damaged files are refused."""

import gzip
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.profile_file import (
    KernelProfile,
    ProfileEntry,
    load_shipped_profiles,
    parse_profile,
    profile_bytes,
    read_profile,
)
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
            assert len(fit.residual.knots if fit.residual else FAMILY_TERMS[family].names) == len(
                FAMILY_TERMS[family].names
            ), where


def test_intervals_cover_about_eighty_percent(shipped: tuple[KernelProfile, ...]) -> None:
    coverage = [fit.errors.coverage_80 for profile in shipped for fit in profile.fits.values()]
    assert 0.75 < np.median(coverage) < 0.85


def test_a_profile_written_and_read_is_the_same_bytes() -> None:
    for path in sorted(FOLDER.glob("*.json.gz"))[:2]:
        entry = ProfileEntry.model_validate_json(gzip.decompress(path.read_bytes()))
        assert profile_bytes(entry) == path.read_bytes()


def test_damaged_profiles_are_refused(tmp_path: Path) -> None:
    path = sorted(FOLDER.glob("*.json.gz"))[0]
    good = json.loads(gzip.decompress(path.read_bytes()))

    def packed(value: object) -> bytes:
        return gzip.compress(json.dumps(value).encode(), mtime=0)

    unknown = good | {"surprise": 1}
    newer = good | {"schema_version": 2}
    crooked = json.loads(json.dumps(good))
    with_residual = next(fit for fit in crooked["fits"] if fit["residual"])
    with_residual["residual"]["factors"][0].pop()
    for data in (path.read_bytes()[:200], b"", b"text", packed(unknown), packed(newer), packed(crooked)):
        with pytest.raises(InputError):
            parse_profile(data, "x.json.gz")
    with pytest.raises(InputError, match="cannot be read"):
        read_profile(tmp_path / "absent.json.gz")


@needs_shared
@pytest.mark.shared
@pytest.mark.parametrize(("family", "dtype"), [("attention_decode", "bf16"), ("attention_prefill", "fp8")])
def test_recorded_errors_match_the_tables(shipped: tuple[KernelProfile, ...], family: str, dtype: str) -> None:
    """All rows, priced with what is shipped: the median error lies between the recorded two, to a tenth."""
    from simtool.calibration.aiconfigurator import find_tables, read_table
    from simtool.calibration.fit_family import predicted_log
    from simtool.hardware.device import load_device
    from simtool.hardware.profile_file import stored_residual

    profile = next(p for p in shipped if (p.device, p.library) == ("h200", "trtllm"))
    fit = profile.fits[family, dtype]
    tables = {
        kind.family: (kind, path) for kind, path in find_tables(SHARED / "data/aiconfigurator", "h200_sxm", "trtllm")
    }
    kind, path = tables[family]
    rows = next(r for r in read_table(path, kind, load_device("h200")) if r.dtype == dtype)
    residual = None if fit.residual is None else stored_residual(fit.residual)
    error = np.log(rows.seconds) - predicted_log(fit.law, residual, rows, fit.peak_flops, fit.bandwidth_bytes_per_s)
    median = float(np.median(np.abs(np.expm1(-error))))
    recorded = sorted([fit.errors.in_sample_median, fit.errors.held_out_median])
    assert 0.9 * recorded[0] <= median <= 1.1 * recorded[1]
