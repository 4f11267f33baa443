"""A Gaussian process drawn from known scales and noise: the fit must find them again, and know where it is unsure."""

from dataclasses import replace

import numpy as np
import pytest

from simtool.calibration.fit_family import MOST_PROCESS_ROWS
from simtool.calibration.fit_profile import fit_table
from simtool.calibration.measurements import Measurements
from simtool.calibration.peaks import Peaks
from simtool.calibration.process_fit import _objective, fit_process
from simtool.hardware.fitted_process import GaussianProcess, matern
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.roofline import RooflineLaw

PEAK, BANDWIDTH = 989.4e12, 4.8e12
PEAKS = Peaks(flops={"bf16": PEAK}, hbm_bytes_per_s=BANDWIDTH, source="synthetic")
LAW = RooflineLaw(launch_s=4e-6, compute_efficiency=0.72, memory_efficiency=0.83, exponent=1.8)
SCALES, SIGNAL, NOISE = np.array([1.5, 6.0]), 0.2, 0.03


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of two features in a box of 10 octaves, and one sample of the process there."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, 10, size=(count, 2))
    covariance = SIGNAL**2 * matern(points, points, SCALES) + NOISE**2 * np.eye(count)
    return points, np.linalg.cholesky(covariance) @ random.standard_normal(count)


def calibration(noise: float, seed: int = 0, wave: float = 0.15, sizes: int = 25) -> Measurements:
    """A run's GEMMs: six shapes, 25 sizes each, a tenth of them twice; a smooth wave on top of the law."""
    random = np.random.default_rng(seed)
    shapes = [(1280, 8192), (8192, 1024), (57344 // 8, 8192), (8192, 28672 // 8), (4096, 4096), (128256 // 8, 8192)]
    m = np.tile(np.round(2.0 ** np.linspace(0, 14, sizes)), len(shapes))
    dims = {
        "m": m,
        "n": np.repeat([n for n, _ in shapes], sizes) * 1.0,
        "k": np.repeat([k for _, k in shapes], sizes) * 1.0,
    }
    again = random.permutation(len(m))[: len(m) // 10]
    dims = {name: np.concatenate([column, column[again]]) for name, column in dims.items()}
    seconds = LAW.seconds(FAMILY_TERMS["gemm"].work(dims, "bf16"), PEAK, BANDWIDTH)
    bent = wave * np.sin(np.log2(dims["m"]) + 0.3 * np.log2(dims["n"]))
    seconds = seconds * np.exp(bent + noise * random.standard_normal(len(bent)))
    lines = np.arange(len(seconds))
    return Measurements(
        family="gemm", dtype="bf16", dims=dims, seconds=seconds, lines=lines, table="synthetic", kernels=("law",)
    )


def test_scales_signal_and_noise_are_recovered() -> None:
    points, target = drawn(400, 1)
    found = fit_process(points, target, seed=0)
    assert found.scales == pytest.approx(SCALES, rel=0.35)
    assert found.signal == pytest.approx(SIGNAL, rel=0.35)
    assert found.noise == pytest.approx(NOISE, rel=0.15)


def test_a_feature_that_does_not_matter_gets_a_long_scale() -> None:
    points, target = drawn(200, 2)
    useless = np.random.default_rng(3).uniform(0, 10, size=(200, 1))
    found = fit_process(np.hstack([points, useless]), target, seed=0)
    assert found.scales[2] > 5 * found.scales[0]


def test_the_gradient_is_the_slope_of_the_objective() -> None:
    points, target = drawn(40, 4)
    at = np.log([2.0, 3.0, 0.3, 0.05])
    objective = _objective(points, target, np.zeros(4))
    for index in range(4):
        step = np.eye(4)[index] * 1e-5
        slope = (objective(at + step)[0] - objective(at - step)[0]) / 2e-5
        assert objective(at)[1][index] == pytest.approx(slope, rel=1e-4)


def test_new_points_lie_inside_the_interval_as_often_as_it_says() -> None:
    points, target = drawn(600, 5)
    process = fit_process(points[:300], target[:300], seed=0)
    mean, deviation = process.predict(points[300:])
    inside = np.abs(target[300:] - mean) < 1.645 * deviation
    assert 0.85 <= inside.mean() <= 0.95
    assert np.std(target[300:] - mean) < 0.4 * np.std(target[300:])


def test_a_gap_fades_to_the_law_and_the_edge_is_held() -> None:
    process = GaussianProcess(
        points=np.array([[0.0], [1.0], [20.0]]), target=np.array([0.3, 0.3, 0.0]), scales=np.array([1.0]),
        signal=0.2, noise=0.01,
    )  # fmt: skip
    mean, deviation, outside = process.evaluate(np.array([[0.5], [10.0], [1000.0]]))
    assert mean[0] == pytest.approx(0.3, abs=0.05)
    assert mean[1] == pytest.approx(0.0, abs=1e-3)
    assert deviation[1] == pytest.approx(np.hypot(0.2, 0.01), rel=1e-3)
    assert deviation[0] < 0.5 * deviation[1]
    assert outside[2] == 980.0
    assert mean[2] == pytest.approx(process.predict(np.array([[20.0]]))[0][0])


def test_left_out_errors_are_those_of_refitting_without_the_point() -> None:
    points, target = drawn(30, 6)
    process = GaussianProcess(points=points, target=target, scales=SCALES, signal=SIGNAL, noise=NOISE)
    others = np.arange(30) != 7
    without = GaussianProcess(points=points[others], target=target[others], scales=SCALES, signal=SIGNAL, noise=NOISE)
    mean, deviation = without.predict(points[7:8])
    error, spread = process.left_out()
    assert error[7] == pytest.approx(target[7] - mean[0])
    assert spread[7] == pytest.approx(deviation[0])


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.04])
def test_a_synthetic_device_gives_its_law_back(noise: float) -> None:
    """The hard gate: a law with seeded noise, from 165 points."""
    fit = fit_table(calibration(noise, wave=0.0), PEAKS, seed=0).fit
    assert fit.law.launch_s == pytest.approx(LAW.launch_s, rel=0.05)
    assert fit.law.compute_efficiency == pytest.approx(LAW.compute_efficiency, rel=0.05)
    assert fit.law.memory_efficiency == pytest.approx(LAW.memory_efficiency, rel=0.05)
    truth = calibration(0.0, seed=9, wave=0.0, sizes=40)  # other sizes too
    error = fit.log_seconds(truth) - np.log(truth.seconds)
    assert np.abs(error).max() < 0.005 + 1.5 * noise
    assert fit.errors.held_out_median < 0.002 + noise


@pytest.mark.parametrize("noise", [0.01, 0.04])
def test_what_no_law_follows_is_learned_within_the_noise(noise: float) -> None:
    rows = calibration(noise)
    assert len(rows.seconds) == 165 <= MOST_PROCESS_ROWS
    fit = fit_table(rows, PEAKS, seed=0).fit
    assert isinstance(fit.residual, GaussianProcess)
    assert fit.residual.noise == pytest.approx(noise, rel=0.4)
    truth = calibration(0.0, seed=9)  # the same wave without noise
    error = fit.log_seconds(truth) - np.log(truth.seconds)
    assert np.median(np.abs(error)) < 0.7 * noise
    assert fit.errors.noise_points >= 15
    assert fit.errors.held_out_median < 2 * max(fit.errors.noise_median, 0.67 * noise)
    assert fit.errors.law_only_median > 2 * fit.errors.held_out_median
    assert 0.82 <= fit.errors.coverage_90 <= 0.98  # of 165 rows: two deviations around 90%


def test_one_wild_point_does_not_bend_the_law() -> None:
    rows = calibration(0.01, wave=0.0, sizes=12)
    wild = replace(rows, seconds=np.where(np.arange(len(rows.seconds)) == 17, 10 * rows.seconds, rows.seconds))
    plain, bent = (fit_table(r, PEAKS, seed=0).fit.law for r in (rows, wild))
    assert bent.memory_efficiency == pytest.approx(plain.memory_efficiency, rel=0.05)
    assert bent.launch_s == pytest.approx(plain.launch_s, rel=0.05)
