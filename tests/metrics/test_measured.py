"""Results on disk."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.measured import itl_histogram, load_result, save_requests
from simtool.metrics import Result
from tests.metrics.runs import random_run


@pytest.mark.parametrize("rows", [1, 40])
def test_save_and_load(tmp_path: Path, rows: int) -> None:
    run = random_run(1, rows, warmup=rows // 4, refuse=True)
    save_requests(run, tmp_path / "requests.npz")
    back = load_result(tmp_path / "requests.npz")
    for field in fields(Result):
        left, right = getattr(run, field.name), getattr(back, field.name)
        np.testing.assert_equal(left, right)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
    assert [entry.name for entry in tmp_path.iterdir()] == ["requests.npz"]


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    save_requests(random_run(1, 30), good)
    bad = tmp_path / "bad.npz"
    for content in (b"", b"PK\x03\x04 no", b"hello", good.read_bytes()[:-200], good.read_bytes()[:100]):
        bad.write_bytes(content)
        with pytest.raises(InputError, match="is no requests file"):
            load_result(bad)
    np.savez(bad, a=np.zeros(3))
    with pytest.raises(InputError, match="has no"):
        load_result(bad)
    np.savez(bad, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(InputError):
        load_result(bad)
    np.save(tmp_path / "one.npy", np.zeros(3))
    for wrong in (tmp_path / "one.npy", tmp_path / "absent.npz", tmp_path):
        with pytest.raises(InputError):
            load_result(wrong)
    with np.load(good) as archive:
        arrays = dict(archive)
    np.savez(bad, **(arrays | {"sent_s": np.zeros(3)}))
    with pytest.raises(InputError, match="different lengths"):
        load_result(bad)


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        save_requests(random_run(1, 3), tmp_path / "absent" / "r.npz")


def test_histogram_counts_every_gap_in_narrow_bins() -> None:
    gaps = np.random.default_rng(0).gamma(2, 0.01, 1000)
    edges, counts = itl_histogram(gaps)
    assert counts.sum() == 1000
    np.testing.assert_allclose(edges[1:] / edges[:-1], 1.005)
    assert itl_histogram(np.empty(0))[1].sum() == 0
