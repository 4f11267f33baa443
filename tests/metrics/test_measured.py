"""Results on disk, and real runs read as results."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.measured import itl_histogram, load_result, measured_metrics, read_measured, save_requests
from simtool.metrics import Result, serving_metrics
from tests.metrics.runs import random_run, run_of

DETAILED = {
    "input_lens": [10, 20],
    "output_lens": [3, 2],
    "ttfts": [0.5, 0.25],
    "itls": [[0.1, 0.3], [0.2]],
    "start_times": [101.0, 102.0],
    "request_throughput": 1.4,
    "mean_ttft_ms": 375.0,
    "backend": "vllm",
    "request_goodput": None,
}


def write(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document))
    return path


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
        with pytest.raises(InputError, match="not a requests file"):
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


def test_measured_run_has_the_same_metrics_as_the_simulated_one(tmp_path: Path) -> None:
    measured = serving_metrics(read_measured(write(tmp_path, DETAILED), devices=4))
    simulated = serving_metrics(run_of([1.0, 2.0], [0.5, 0.25], [[0.1, 0.3], [0.2]]))
    for key in ("duration", "mean_ttft_ms", "p99_tpot_ms", "p99_itl_ms", "mean_e2el_ms", "output_throughput_per_gpu"):
        assert measured[key] == pytest.approx(simulated[key]), key


def test_failed_requests_of_a_measured_run(tmp_path: Path) -> None:
    document = DETAILED | {"output_lens": [0, 2], "itls": [[], [0.2]], "ttfts": [0.0, 0.25]}
    assert serving_metrics(read_measured(write(tmp_path, document)))["failed"] == 1


def test_stated_metrics(tmp_path: Path) -> None:
    assert measured_metrics(write(tmp_path, DETAILED)) == {"request_throughput": 1.4, "mean_ttft_ms": 375.0}
    with pytest.raises(InputError, match="request_throughput"):
        measured_metrics(write(tmp_path, {}))


@pytest.mark.parametrize(
    "document",
    [[], {}, DETAILED | {"start_times": None}, DETAILED | {"ttfts": [1.0]}, DETAILED | {"ttfts": ["a", "b"]},
     DETAILED | {"itls": [[None], [1.0]]}, DETAILED | {"output_lens": [[1], [2, 3]]}],
)  # fmt: skip
def test_bad_measured_runs(tmp_path: Path, document: object) -> None:
    with pytest.raises(InputError):
        read_measured(write(tmp_path, document))


def test_histogram_counts_every_gap_in_narrow_bins() -> None:
    gaps = np.random.default_rng(0).gamma(2, 0.01, 1000)
    edges, counts = itl_histogram(gaps)
    assert counts.sum() == 1000
    np.testing.assert_allclose(edges[1:] / edges[:-1], 1.005)
    assert itl_histogram(np.empty(0))[1].sum() == 0
