"""Fit one family of kernels on one device: a roofline law, then a residual on top of it. Deterministic.

Few points (a calibration run, a model's own shapes) take a Gaussian process, large tables a separable residual. What is
held out: a fifth of the points at a time from a process, a fifth of whole shapes from a table. The stored fit is made
from all rows; its errors are those of the fits that left rows out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.fit_errors import coverage, errors_of, intervals, points_of, repeat_noise
from simtool.calibration.fit_law import fit_law, four_digits, rounded_law
from simtool.calibration.measurements import Measurements
from simtool.calibration.process_fit import fit_process
from simtool.calibration.residual_fit import choose_knots, fit_separable, rounded_residual
from simtool.hardware.fitted_process import GaussianProcess
from simtool.hardware.fitted_residual import SeparableResidual
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.kernel_profile import INTERVAL, FitErrors
from simtool.hardware.roofline import RooflineLaw, regimes

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Residual = SeparableResidual | GaussianProcess

LAW_ROWS = 4_000  # rows a law (at most six parameters) is fitted to
FOLDS = 5
FEWEST_SHAPES = 10
FEWEST_ROWS, MOST_ROWS = 12, 32_000  # rows a residual is fitted to
MOST_FOLDED_ROWS = 8_000  # rows beyond which one fifth of the shapes are enough to set and to judge intervals
MOST_PROCESS_ROWS = 800  # rows beyond which a separable residual is both better and smaller
ROWS_A_TERM = 40  # a small table gets fewer terms and knots, not an exact fit of its noise
STARTS, SWEEPS = 2, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class FitShape:
    """How a family is fitted. shape: the dims that make a kernel's shape; whole shapes are held out of large tables.

    knots: most knots a feature; rank, ridge: of the separable residual.
    """

    shape: tuple[str, ...]
    knots: tuple[int, ...]
    rank: int
    ridge: float


_BYTES = FitShape(shape=("bytes",), knots=(16,), rank=1, ridge=1.0)
# Ranks, knots and ridges chosen by held-out error against size on a dozen tables of all three devices: twice the rank
# would gain a tenth of the median error more, half of it loses a third. Columns whose distinct values choose the kernel
# (heads a KV head, experts) have a knot each.
FIT_SHAPES: Mapping[str, FitShape] = {
    "gemm": FitShape(shape=("n", "k"), knots=(74, 22, 22, 5, 12, 40, 20, 20), rank=14, ridge=0.5),
    "moe": FitShape(
        shape=("hidden", "inter", "num_experts", "moe_tp", "moe_ep"),
        knots=(14, 14, 10, 12, 10, 8, 18, 18),
        rank=16,
        ridge=0.15,
    ),
    "attention_prefill": FitShape(
        shape=("heads", "kv_heads", "head_dim", "window"),
        knots=(16, 17, 14, 20, 5, 2, 10, 20, 20),
        rank=16,
        ridge=0.15,
    ),
    "attention_decode": FitShape(
        shape=("heads", "kv_heads", "head_dim", "window"), knots=(18, 17, 20, 5, 2, 10, 36), rank=22, ridge=0.15
    ),
    "elementwise": FitShape(shape=("bytes", "kind"), knots=(16, 2, 2, 2), rank=4, ridge=0.3),
    "embedding": _BYTES,
    "sampling": _BYTES,
    "mla_prefill": FitShape(shape=("batch", "heads"), knots=(9, 18, 18, 8, 16, 16), rank=8, ridge=0.15),
    "mla_decode": FitShape(shape=("batch", "heads"), knots=(12, 17, 8, 20), rank=10, ridge=0.15),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedFamily:
    """A fit, rounded as it is stored. intervals: [regime, 2] in deviations of the residual; law_interval: [2]."""

    law: RooflineLaw
    residual: Residual
    peak_flops: float
    bandwidth_bytes_per_s: float
    errors: FitErrors
    intervals: Array
    law_interval: Array
    skew: float = 0.0

    def log_seconds(self, rows: Measurements) -> Array:
        """Predicted log seconds of measured rows, [N], from what is stored."""
        return predicted_log(self.law, self.residual, rows, self.peak_flops, self.bandwidth_bytes_per_s)[0]


def predicted_log(
    law: RooflineLaw, residual: Residual | None, rows: Measurements, peak: float, bandwidth: float
) -> tuple[Array, Array]:
    """(log seconds that law and residual predict for `rows`, the residual's deviation), each [N]."""
    terms = FAMILY_TERMS[rows.family]
    log_law = np.log(
        np.broadcast_to(law.seconds(terms.work(rows.dims, rows.dtype), peak, bandwidth), rows.seconds.shape)
    )
    if residual is None:
        return np.asarray(log_law), np.ones(len(log_law))
    value, deviation, _ = residual.evaluate(terms.features(rows.dims))
    return np.asarray(log_law + value), deviation


def fit_family(rows: Measurements, peak: float, bandwidth: float, seed: int) -> FittedFamily:
    """Fit law and residual to measured rows; peak and bandwidth are the datasheet's, or what was reached."""
    few = len(rows.seconds) <= MOST_PROCESS_ROWS
    fold = _folds(rows, few, seed)
    rounds = list(range(FOLDS)) if len(fold) <= MOST_FOLDED_ROWS else [0]
    parts = [_left_out(rows, np.flatnonzero(fold == index), peak, bandwidth, seed) for index in rounds]
    chosen = np.concatenate([part.rows for part in parts])
    error = np.concatenate([part.error for part in parts])
    law_error = np.concatenate([part.law_error for part in parts])
    deviation = np.concatenate([part.deviation for part in parts])
    helps = np.median(np.abs(error)) < np.median(np.abs(law_error))
    if not helps:
        error, deviation = law_error, np.ones(len(error))
    law, residual = _fit(rows, np.arange(len(rows.seconds)), peak, bandwidth, seed, with_residual=bool(helps))
    which = np.broadcast_to(
        regimes(law, FAMILY_TERMS[rows.family].work(rows.dims, rows.dtype), peak, bandwidth), fold.shape
    )
    inside = np.log(rows.seconds) - predicted_log(law, residual, rows, peak, bandwidth)[0]
    judges = fold if len(rounds) > 1 else points_of(rows, FIT_SHAPES[rows.family].shape) % 2
    covered = coverage(error / deviation, which[chosen], judges[chosen])
    return FittedFamily(
        law=law,
        residual=residual,
        peak_flops=peak,
        bandwidth_bytes_per_s=bandwidth,
        errors=errors_of(inside=inside, outside=error, law_only=law_error, covered=covered, noise=repeat_noise(rows)),
        intervals=intervals(error / deviation, which[chosen]),
        law_interval=np.round(np.quantile(law_error, INTERVAL), 4),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _LeftOut:
    """Rows left out of a fit: log errors of the fit and of its law alone, and the residual's deviations."""

    rows: Rows
    error: Array
    law_error: Array
    deviation: Array


def _left_out(rows: Measurements, held: Rows, peak: float, bandwidth: float, seed: int) -> _LeftOut:
    train = np.setdiff1d(np.arange(len(rows.seconds)), held)
    if not len(train):  # one point alone: nothing can be left out
        train = held
    law, residual = _fit(rows, train, peak, bandwidth, seed, with_residual=True)
    some = rows.take(held)
    value, deviation = predicted_log(law, residual, some, peak, bandwidth)
    alone, _ = predicted_log(law, None, some, peak, bandwidth)
    seconds = np.log(some.seconds)
    return _LeftOut(rows=held, error=seconds - value, law_error=seconds - alone, deviation=deviation)


def _fit(
    rows: Measurements, train: Rows, peak: float, bandwidth: float, seed: int, *, with_residual: bool
) -> tuple[RooflineLaw, Residual]:
    """Law and residual of the rows `train`, rounded as they are stored."""
    terms = FAMILY_TERMS[rows.family]
    work = terms.work(rows.dims, rows.dtype)
    some = np.random.default_rng(seed).permutation(train)[:LAW_ROWS]
    law = rounded_law(fit_law(work, rows.seconds, peak, bandwidth, some))
    features = terms.features(rows.dims)
    if not with_residual or len(train) < FEWEST_ROWS:
        return law, _no_residual(features[train])
    left = np.log(rows.seconds) - np.log(law.seconds(work, peak, bandwidth))
    if len(rows.seconds) <= MOST_PROCESS_ROWS:
        return law, _rounded_process(fit_process(features[train], left[train], seed=seed))
    return law, _best_separable(features, left, train, FIT_SHAPES[rows.family], seed)


def _no_residual(features: Array) -> SeparableResidual:
    """Zero everywhere; it keeps the box of the features, so that what lies outside is known to be extrapolated."""
    knots = tuple(np.unique(np.round([column.min(), column.max()], 4)) for column in features.T)
    return SeparableResidual(knots=knots, factors=tuple(np.zeros((len(k), 1)) for k in knots), limit=0.0)


def _rounded_process(process: GaussianProcess) -> GaussianProcess:
    return GaussianProcess(
        points=process.points,
        target=process.target,
        scales=np.array([four_digits(float(scale)) for scale in process.scales]),
        signal=four_digits(process.signal),
        noise=four_digits(process.noise),
    )


def _folds(rows: Measurements, few: bool, seed: int) -> NDArray[np.intp]:
    """Which fifth each row belongs to, [N]: by point where rows are few, by shape where a table has enough of them."""
    index = points_of(rows) if few else points_of(rows, FIT_SHAPES[rows.family].shape)
    if not few and index.max() + 1 < FEWEST_SHAPES:
        index = points_of(rows)
    shuffled = np.random.default_rng(seed).permutation(int(index.max()) + 1)
    return np.asarray(shuffled[index] % FOLDS, dtype=np.intp)


def _best_separable(features: Array, left: Array, train: Rows, shape: FitShape, seed: int) -> SeparableResidual:
    """The best in sample of some starts of the alternating fit (it has local optima), rounded as it is stored."""
    rank = min(shape.rank, max(1, len(train) // ROWS_A_TERM))
    most = tuple(min(most, max(4, len(train) // 12)) for most in shape.knots)
    knots = tuple(choose_knots(column, count) for column, count in zip(features.T, most, strict=True))
    some = np.sort(np.random.default_rng(seed).permutation(train)[:MOST_ROWS])
    fits = [
        fit_separable(
            features[some], left[some], knots=knots, rank=rank, ridge=shape.ridge, sweeps=SWEEPS, seed=seed + start
        )
        for start in range(STARTS)
    ]
    scores = [float(np.median(np.abs(left[some] - fit.evaluate(features[some])[0]))) for fit in fits]
    return rounded_residual(fits[int(np.argmin(scores))])
