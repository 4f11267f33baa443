"""A made-up law that all devices share: the fit finds it again, and prices the device that was left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simtool.calibration.fit_kernels import Fitted, fit_rows, samples_of, write_profiles
from simtool.calibration.fit_transfer import write_transfer
from simtool.calibration.fit_transfer_law import Sample, fit_laws
from simtool.calibration.leave_one_out import interval_of, left_out, table_quantiles
from simtool.calibration.measurements import Measurements
from simtool.hardware.device import load_device
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.transfer import TransferLaw
from simtool.hardware.transfer_file import parse_transfers

NOISE = 0.05
LAW = TransferLaw(
    launch_cycles=9_000.0,
    compute_efficiency=0.7,
    memory_efficiency=0.8,
    exponent=1.6,
    item_cycles=2_600.0,
    serial_efficiency=0.5,
    cache_bytes_per_cycle=8.0,
    cache_share=0.4,
    tail=0.1,
)
DEVICES = ("h200", "a100-80g", "l40s", "rtx-pro-6000")


def gemms(device: str, seed: int) -> Measurements:
    axes = (4.0 ** np.arange(7), 4.0 ** np.arange(3, 8), 4.0 ** np.arange(3, 8, 1.3))
    m, n, k = (axis.ravel() for axis in np.meshgrid(*axes))
    dims = {"m": m, "n": n, "k": k}
    exact = LAW.log_seconds(FAMILY_TERMS["gemm"].work(dims, "bf16"), load_device(device), "gemm", "bf16")
    seconds = np.exp(exact + NOISE * np.random.default_rng(seed).standard_normal(len(m)))
    lines = np.arange(len(m)) + 2
    return Measurements(
        family="gemm", dtype="bf16", dims=dims, seconds=seconds, lines=lines, table="made up", kernels=("law",)
    )


@pytest.fixture(scope="module")
def fits() -> list[Fitted]:
    return [fit_rows(load_device(name), "vllm", gemms(name, seed)) for seed, name in enumerate(DEVICES)]


@pytest.fixture(scope="module")
def samples(fits: list[Fitted], tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return samples_of(fits, write_profiles(fits, tmp_path_factory.mktemp("profiles")))


def test_the_shared_law_is_found_again(samples: list[Sample]) -> None:
    law = fit_laws(samples)["vllm", "gemm", "bf16"]
    for name in ("launch_cycles", "compute_efficiency", "memory_efficiency", "cache_bytes_per_cycle"):
        assert getattr(law, name) == pytest.approx(getattr(LAW, name), rel=0.1), name


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_left_out_is_predicted_within_the_noise(samples: list[Sample], name: str) -> None:
    outcomes = left_out(samples)
    outcome = next(one for one in outcomes if one.sample.device.name == name)
    assert {source.device.name for source in outcome.sources} == set(DEVICES) - {name}
    size = np.abs(outcome.error)
    assert np.median(size) < 1.3 * 0.6745 * NOISE  # of a normal error, half the rows lie within 0.6745 deviations
    assert np.quantile(size, 0.95) < 1.3 * 1.96 * NOISE
    ends = interval_of([one for one in outcomes if one is not outcome], "gemm")[outcome.regime]
    assert 0.85 < np.mean((outcome.error >= ends[:, 0]) & (outcome.error <= ends[:, 1])) < 0.99


def test_same_samples_give_the_same_bytes_and_load(samples: list[Sample], tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.mkdir()
    first, second = (write_transfer(samples, path, source="made up", command="none").read_bytes() for path in paths)
    assert first == second
    laws = parse_transfers(first, "x")
    assert list(laws) == [("vllm", "gemm", "bf16")]
    assert np.abs(laws["vllm", "gemm", "bf16"].left_out).max() < 4 * NOISE


def test_one_device_alone_makes_no_law(samples: list[Sample], tmp_path: Path) -> None:
    """Nobody could say how wrong it is."""
    path = write_transfer(samples[:1], tmp_path, source="made up", command="none")
    assert parse_transfers(path.read_bytes(), "x") == {}


def test_a_fit_of_another_librarys_rows_is_not_pooled(fits: list[Fitted], tmp_path: Path) -> None:
    noted = replace(fits[0], table=replace(fits[0].table, note="another's"))
    found = samples_of([noted, *fits[1:]], write_profiles([noted, *fits[1:]], tmp_path))
    assert {sample.device.name for sample in found} == set(DEVICES[1:])


def test_large_tables_do_not_outvote_small_ones() -> None:
    small, large = np.full(200, 1.0), np.full(20_000, 2.0)
    assert table_quantiles([small, large], (0.25, 0.75)).tolist() == [1.0, 2.0]
    few = np.full(5, 1.0)  # but a handful of rows is no table
    assert table_quantiles([few, large], (0.25, 0.75)).tolist() == [2.0, 2.0]
