"""A synthetic device with a known law: the fit must find it again."""

from dataclasses import replace

import numpy as np
import pytest

from simtool.calibration.fit_family import FIT_SHAPES, fit_family
from simtool.calibration.fit_law import fit_law
from simtool.calibration.measurements import Measurements
from simtool.calibration.residual_fit import choose_knots, fit_separable
from simtool.hardware.fitted_residual import FACTOR_SCALE, SeparableResidual
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.roofline import RooflineLaw

PEAK, BANDWIDTH = 989.4e12, 4.8e12
LAW = RooflineLaw(launch_s=4e-6, compute_efficiency=0.72, memory_efficiency=0.83, exponent=1.8)


def synthetic_gemms(noise: float, seed: int = 0) -> Measurements:
    rng = np.random.default_rng(seed)
    m, n, k = np.meshgrid(2.0 ** np.arange(14), 2.0 ** np.arange(6, 16), 2.0 ** np.arange(6, 16), indexing="ij")
    dims = {"m": m.ravel(), "n": n.ravel(), "k": k.ravel()}
    seconds = LAW.seconds(FAMILY_TERMS["gemm"].work(dims, "bf16"), PEAK, BANDWIDTH)
    seconds = seconds * np.exp(noise * rng.standard_normal(len(seconds)))
    return Measurements(
        family="gemm",
        dtype="bf16",
        dims=dims,
        seconds=seconds,
        lines=np.arange(len(seconds)) + 2,
        table="synthetic",
        kernels=("law",),
    )


def synthetic_decodes(law: RooflineLaw) -> Measurements:
    axes = (2.0 ** np.arange(10), 2.0 ** np.arange(1, 18), np.array([8.0, 16.0, 32.0]), np.array([1.0, 4.0, 8.0]))
    batch, length, heads, kv_heads = (a.ravel() for a in np.meshgrid(*axes, indexing="ij"))
    ones = np.ones(len(batch))
    dims = {"batch": batch, "kv_len": length, "heads": heads, "kv_heads": kv_heads}
    dims |= {"head_dim": 128 * ones, "window": 0 * ones}
    seconds = law.seconds(FAMILY_TERMS["attention_decode"].work(dims, "bf16"), PEAK, BANDWIDTH)
    return Measurements(
        family="attention_decode",
        dtype="bf16",
        dims=dims,
        seconds=seconds,
        lines=np.arange(len(batch)) + 2,
        table="synthetic",
        kernels=("law",),
    )


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_fit_recovers_a_known_law_from_noisy_rows(noise: float) -> None:
    rows = synthetic_gemms(noise)
    work = FAMILY_TERMS["gemm"].work(rows.dims, "bf16")
    law = fit_law(work, rows.seconds, PEAK, BANDWIDTH, np.arange(0, len(rows.seconds), 2))
    assert law.launch_s == pytest.approx(LAW.launch_s, rel=0.03)
    assert law.compute_efficiency == pytest.approx(LAW.compute_efficiency, rel=0.03)
    assert law.memory_efficiency == pytest.approx(LAW.memory_efficiency, rel=0.03)
    assert law.exponent == pytest.approx(LAW.exponent, rel=0.1)


def test_fit_recovers_the_cost_of_an_item() -> None:
    law = RooflineLaw(launch_s=6e-6, compute_efficiency=0.6, memory_efficiency=0.8, exponent=1.5, item_s=2e-8)
    rows = synthetic_decodes(law)
    work = FAMILY_TERMS["attention_decode"].work(rows.dims, "bf16")
    fitted = fit_law(work, rows.seconds, PEAK, BANDWIDTH, np.arange(len(rows.seconds)))
    assert fitted.item_s == pytest.approx(law.item_s, rel=0.05)
    assert fitted.memory_efficiency == pytest.approx(law.memory_efficiency, rel=0.05)


def test_family_fit_predicts_held_out_shapes_within_the_noise() -> None:
    rows = synthetic_gemms(0.03).take(np.arange(0, 14 * 100, 1))
    fit = fit_family(rows, PEAK, BANDWIDTH, seed=1)
    assert fit.errors.held_out_points > 0
    assert fit.errors.held_out_median < 0.03
    assert 0.85 <= fit.errors.coverage_90 <= 0.95
    assert np.all(fit.intervals[:, 0] < 0)
    assert np.all(fit.intervals[:, 1] > 0)


def test_same_rows_and_seed_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simtool.calibration.fit_family.SWEEPS", 3)
    rows = synthetic_gemms(0.05)
    first, second = (fit_family(rows, PEAK, BANDWIDTH, seed=7) for _ in range(2))
    assert first.law == second.law
    features = FAMILY_TERMS["gemm"].features(rows.dims)
    assert np.array_equal(first.residual.evaluate(features)[0], second.residual.evaluate(features)[0])
    assert first.errors == second.errors


def test_separable_residual_learns_a_step_and_a_product() -> None:
    rng = np.random.default_rng(3)
    features = rng.integers(0, 12, size=(4000, 3)).astype(float)
    target = 0.4 * (features[:, 0] > 5) + 0.02 * features[:, 1] * np.sin(features[:, 2])
    fitted = fit_separable(features, target, knots=(np.arange(12.0),) * 3, rank=4, ridge=1e-3, sweeps=30, seed=0)
    value, _, outside = fitted.evaluate(features)
    assert np.abs(value - target).max() < 0.02
    assert outside.max() <= 0


def bent_gemms() -> Measurements:
    """A law with a step in m that no law can follow."""
    rows = synthetic_gemms(0.02)
    return replace(rows, seconds=rows.seconds * np.where(rows.dims["m"] > 64, 1.4, 1.0))


def test_a_law_alone_gets_no_residual_but_keeps_its_box() -> None:
    fit = fit_family(synthetic_gemms(0.05), PEAK, BANDWIDTH, seed=2)
    value, _, outside = fit.residual.evaluate(
        np.array([[0.0, 6.0, 6.0, 0.0, -7.0, 6.0, 12.0, 6.0], [20.0, 6.0, 6.0, 4.0, 0.0, 26.0, 12.0, 26.0]])
    )
    assert value.tolist() == [0.0, 0.0]
    assert outside == pytest.approx([0.0, 7.0])


def test_residual_survives_being_stored_as_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simtool.calibration.fit_family.SWEEPS", 3)
    fit = fit_family(bent_gemms(), PEAK, BANDWIDTH, seed=2)
    residual = fit.residual
    assert isinstance(residual, SeparableResidual)
    assert all(np.allclose(f / FACTOR_SCALE, np.round(f / FACTOR_SCALE)) for f in residual.factors)
    assert len(residual.knots) == len(FIT_SHAPES["gemm"].knots)


def test_knots_are_the_distinct_values_when_they_are_few() -> None:
    assert choose_knots(np.array([3.0, 1.0, 1.0, 2.0]), 8).tolist() == [1.0, 2.0, 3.0]
    many = choose_knots(np.linspace(0, 10, 1000), 8)
    assert len(many) <= 10
    assert (many[0], many[-1]) == (0.0, 10.0)
