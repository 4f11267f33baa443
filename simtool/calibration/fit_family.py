"""Fit one family of kernels on one device: law by robust least squares, then the separable residual. Deterministic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.measurements import Measurements
from simtool.calibration.residual_fit import choose_knots, fit_separable
from simtool.hardware.fitted import regimes
from simtool.hardware.fitted_residual import SeparableResidual
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.profile_file import REGIMES, ErrorsEntry, ResidualEntry, residual_of, stored_residual
from simtool.hardware.roofline import RooflineLaw, Work

Array = NDArray[np.float64]

LAW_ROWS = 4_000  # rows a law (at most six parameters) is fitted to
HELD_OUT_SHARE = 0.2
FEWEST_SHAPES = 10
FEWEST_ROWS, MOST_ROWS = 60, 16_000  # rows a residual is fitted to
ROWS_A_TERM = 40  # a small table gets fewer terms and knots, not an exact fit of its noise
STARTS, SWEEPS = 2, 12
INTERVAL = (0.1, 0.9)  # quantiles of the 80% interval


@dataclass(frozen=True, slots=True, kw_only=True)
class FitShape:
    """How a family is fitted. shape: the dims that make a kernel's shape; whole shapes are held out.

    knots: most knots a feature; rank, ridge: of the residual.
    """

    shape: tuple[str, ...]
    knots: tuple[int, ...]
    rank: int
    ridge: float


# Ranks and ridges chosen on H200/vllm by held-out error against size: for GEMMs rank 12 gains 0.3 points of median
# error or less over rank 8, where a Gaussian process of 200 points is 1 to 5 points worse.
FIT_SHAPES: Mapping[str, FitShape] = {
    "gemm": FitShape(shape=("n", "k"), knots=(74, 22, 22), rank=10, ridge=1.0),
    "moe": FitShape(
        shape=("hidden", "inter", "num_experts", "moe_tp", "moe_ep"), knots=(14, 14, 10, 12, 10), rank=8, ridge=0.3
    ),
    "attention_prefill": FitShape(
        shape=("heads", "kv_heads", "head_dim", "window"), knots=(16, 17, 14, 10, 5, 2), rank=10, ridge=0.3
    ),
    "attention_decode": FitShape(
        shape=("heads", "kv_heads", "head_dim", "window"), knots=(18, 17, 10, 5, 2), rank=12, ridge=0.3
    ),
    "elementwise": FitShape(shape=("bytes",), knots=(16,), rank=1, ridge=1.0),
    "mla_prefill": FitShape(shape=("batch", "heads"), knots=(9, 18, 18, 8), rank=6, ridge=0.3),
    "mla_decode": FitShape(shape=("batch", "heads"), knots=(12, 17, 8), rank=8, ridge=0.3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedFamily:
    """A fit before it is stored: the rounded law and residual, errors, log intervals."""

    law: RooflineLaw
    residual: ResidualEntry
    peak_flops: float
    bandwidth_bytes_per_s: float
    errors: ErrorsEntry
    intervals: Array
    law_interval: Array

    def log_seconds(self, rows: Measurements) -> Array:
        """Predicted log seconds of measured rows, [N], from what is stored."""
        return predicted_log(self.law, self.residual, rows, self.peak_flops, self.bandwidth_bytes_per_s)


def predicted_log(
    law: RooflineLaw, residual: ResidualEntry | None, rows: Measurements, peak: float, bandwidth: float
) -> Array:
    """Log seconds that law and residual predict for `rows`, [N]."""
    terms = FAMILY_TERMS[rows.family]
    log_law = np.log(law.seconds(terms.work(rows.dims, rows.dtype), peak, bandwidth))
    if residual is None:
        return np.asarray(log_law)
    return np.asarray(log_law + residual_of(residual, rows.table).evaluate(terms.features(rows.dims))[0])


def fit_family(rows: Measurements, peak: float, bandwidth: float, seed: int) -> FittedFamily:
    """Fit law and residual to measured rows; peak and bandwidth are the datasheet's."""
    terms, shape = FAMILY_TERMS[rows.family], FIT_SHAPES[rows.family]
    rng = np.random.default_rng(seed)
    held = _held_out(rows, shape.shape, rng)
    train = np.flatnonzero(~held)
    work = terms.work(rows.dims, rows.dtype)
    law = rounded_law(fit_law(work, rows.seconds, peak, bandwidth, rng.permutation(train)[:LAW_ROWS]))
    log_law = np.log(law.seconds(work, peak, bandwidth))
    left = np.log(rows.seconds) - log_law
    residual = _best_residual(terms.features(rows.dims), left, train, shape, seed)
    error = np.log(rows.seconds) - predicted_log(law, residual, rows, peak, bandwidth)
    which = regimes(law, work, peak, bandwidth)
    test = held if held.any() else ~held
    intervals = _intervals(error[test], np.broadcast_to(which, error.shape)[test])
    index = np.broadcast_to(which, error.shape)[test]
    inside = (error[test] >= intervals[index, 0]) & (error[test] <= intervals[index, 1])
    return FittedFamily(
        law=law,
        residual=residual,
        peak_flops=peak,
        bandwidth_bytes_per_s=bandwidth,
        errors=_errors(error, left, held, float(inside.mean())),
        intervals=intervals,
        law_interval=np.quantile(left, INTERVAL),
    )


def fit_law(work: Work, seconds: Array, peak: float, bandwidth: float, rows: NDArray[np.intp]) -> RooflineLaw:
    """Robust least squares on log error over `rows`. Efficiencies stay within (0.02, 1]: what a cache serves faster
    than memory is the residual's to say.
    """
    from scipy.optimize import least_squares

    def part(column: Array) -> Array:
        return np.asarray(np.broadcast_to(column, seconds.shape)[rows])

    some = Work(
        flops=part(work.flops),
        hbm_bytes=part(work.hbm_bytes),
        items=part(work.items),
        serial_bytes=part(work.serial_bytes),
    )
    has_items, has_serial = bool(some.items.any()), bool(some.serial_bytes.any())

    def law(p: Array) -> RooflineLaw:
        return _law_of(p, has_items, has_serial)

    target = np.log(seconds[rows])
    lowest = np.log([5e-7, 0.02, 0.02, 1.0, 1e-12, 0.02])
    highest = np.log([5e-4, 1.0, 1.0, 8.0, 1e-5, 2.0])
    start = np.log([max(float(seconds[rows].min()), 6e-7), 0.7, 0.75, 1.5, 1e-9, 0.5])

    def log_error(p: Array) -> Array:
        return np.asarray(np.log(law(p).seconds(some, peak, bandwidth)) - target)

    result = least_squares(
        log_error,
        np.clip(start, lowest + 1e-6, highest - 1e-6),
        bounds=(lowest, highest),
        loss="soft_l1",
        f_scale=0.1,
    )
    return law(result.x)


def _law_of(parameters: Array, has_items: bool, has_serial: bool) -> RooflineLaw:
    """The law with the given log parameters; terms that the family does not have are left at nothing."""
    launch, compute, memory, exponent, item, serial = (float(v) for v in np.exp(parameters))
    return RooflineLaw(
        launch_s=launch,
        compute_efficiency=compute,
        memory_efficiency=memory,
        exponent=exponent,
        item_s=item if has_items else 0.0,
        serial_efficiency=serial if has_serial else 1.0,
    )


def rounded_law(law: RooflineLaw) -> RooflineLaw:
    """The law with four significant digits, as it is stored."""
    return RooflineLaw(
        launch_s=_four(law.launch_s),
        compute_efficiency=_four(law.compute_efficiency),
        memory_efficiency=_four(law.memory_efficiency),
        exponent=max(1.0, _four(law.exponent)),
        item_s=_four(law.item_s),
        serial_efficiency=_four(law.serial_efficiency),
    )


def _four(value: float) -> float:
    return float(f"{value:.4g}")


def _held_out(rows: Measurements, names: tuple[str, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Rows of a fifth of the shapes, [N]; where there are fewer than ten shapes, a fifth of the rows."""
    stacked = np.stack([rows.dims[name] for name in names], axis=1)
    _, group = np.unique(stacked, axis=0, return_inverse=True)
    group = group.reshape(-1)
    if group.max() + 1 < FEWEST_SHAPES:
        group = np.arange(len(group))
    groups = int(group.max()) + 1
    return np.isin(group, rng.permutation(groups)[: max(1, round(groups * HELD_OUT_SHARE))])


def _best_residual(features: Array, left: Array, train: NDArray[np.intp], shape: FitShape, seed: int) -> ResidualEntry:
    """The best in sample of some starts of the alternating fit (it has local optima).

    All zero, with the box of the features, for too few rows or where it is no better than the law alone.
    """
    rank = min(shape.rank, max(1, len(train) // ROWS_A_TERM))
    most = tuple(min(most, max(4, len(train) // 12)) for most in shape.knots)
    knots = tuple(choose_knots(column, count) for column, count in zip(features.T, most, strict=True))
    best = SeparableResidual(knots=knots, factors=tuple(np.zeros((len(k), 1)) for k in knots), limit=0.0)
    score = float(np.median(np.abs(left[train])))
    train = np.sort(np.random.default_rng(seed).permutation(train)[:MOST_ROWS])
    for start in range(STARTS if len(train) >= FEWEST_ROWS else 0):
        fitted = fit_separable(
            features[train],
            left[train],
            knots=knots,
            rank=rank,
            ridge=shape.ridge,
            sweeps=SWEEPS,
            seed=seed + start,
        )
        error = float(np.median(np.abs(left[train] - fitted.evaluate(features[train])[0])))
        if error < score:
            best, score = fitted, error
    return stored_residual(best)


def _intervals(error: Array, which: NDArray[np.intp]) -> Array:
    """Log quantiles by regime, [regimes, 2]; a regime with under 30 rows takes those of all."""
    everything = np.quantile(error, INTERVAL)
    groups = [error[which == regime] for regime in range(len(REGIMES))]
    return np.round(np.stack([np.quantile(g, INTERVAL) if len(g) >= 30 else everything for g in groups]), 4)


def relative(error: Array) -> tuple[float, float]:
    """Median and p95 of |predicted / measured - 1| from log(measured / predicted)."""
    if not len(error):
        return float("nan"), float("nan")
    size = np.abs(np.expm1(-error))
    return _four(float(np.median(size))), _four(float(np.quantile(size, 0.95)))


def _errors(error: Array, left: Array, held: NDArray[np.bool_], coverage: float) -> ErrorsEntry:
    inside, outside = relative(error[~held]), relative(error[held] if held.any() else error)
    law = relative(left)
    return ErrorsEntry(
        in_sample_points=int(np.sum(~held)),
        in_sample_median=inside[0],
        in_sample_p95=inside[1],
        held_out_points=int(held.sum()),
        held_out_median=outside[0],
        held_out_p95=outside[1],
        law_only_median=law[0],
        law_only_p95=law[1],
        coverage_80=_four(coverage),
    )
