"""The raw points of a profile beside what the profile says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.hardware.fitted_process import GaussianProcess
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.kernel_profile import FamilyFit, KernelProfile

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPoints:
    """The N points of one fit, measured and predicted. Arrays [N].

    left_out: each prediction comes from the other points (a process); otherwise the fit saw the point that it predicts.
    deviation: of a new measurement, in log (0 without a process).
    """

    fit: FamilyFit
    dims: Mapping[str, Array]
    measured_s: Array
    predicted_s: Array
    deviation: Array
    flops: Array
    hbm_bytes: Array
    left_out: bool

    @property
    def error(self) -> Array:
        """predicted / measured - 1."""
        return np.asarray(self.predicted_s / self.measured_s - 1.0)

    def words(self) -> list[str]:
        """Each point's dims as text."""
        names = list(self.dims)
        return [
            dims_text(dict(zip(names, row, strict=True))) for row in zip(*(self.dims[n] for n in names), strict=True)
        ]


def dims_text(dims: Mapping[str, float]) -> str:
    """ "m 128 · n 4,096 · k 4,096"; what is 0 is left out."""
    shown = (f"{name.replace('_', ' ')} {value:,.0f}" for name, value in dims.items() if value)
    return " · ".join(shown)


def points_of(profile: KernelProfile) -> tuple[FitPoints, ...]:
    """The points of all fits that keep them, in the order of the fits."""
    return tuple(_points_of(profile))


def _points_of(profile: KernelProfile) -> Iterator[FitPoints]:
    for key, fit in profile.fits.items():
        columns = profile.points.get(key)
        if columns is None or not len(columns.seconds):
            continue
        shape = columns.seconds.shape
        terms = FAMILY_TERMS[fit.family]
        try:
            work = terms.work(columns.dims, fit.dtype)
        except KeyError as missing:
            raise InputError(f"{fit.family}/{fit.dtype}", f"its points lack {missing}", "calibrate again") from None
        deviation = np.zeros(shape)
        if isinstance(fit.residual, GaussianProcess):
            error, deviation = left_out(fit.residual)
            predicted = columns.seconds * np.exp(-error)
        else:
            predicted = fit.law.seconds(work, fit.peak_flops, fit.bandwidth_bytes_per_s)
            if fit.residual is not None:
                predicted = predicted * np.exp(fit.residual.evaluate(terms.features(columns.dims))[0])
        yield FitPoints(
            fit=fit,
            dims=columns.dims,
            measured_s=columns.seconds,
            predicted_s=np.broadcast_to(predicted, shape),
            deviation=deviation,
            flops=np.broadcast_to(work.flops, shape),
            hbm_bytes=np.broadcast_to(work.hbm_bytes, shape),
            left_out=isinstance(fit.residual, GaussianProcess),
        )


def left_out(process: GaussianProcess) -> tuple[Array, Array]:
    """(error [N], deviation [N]) in log of each point predicted from the others; repeats of a point leave together.

    A repeat would otherwise be predicted from its twin. The formula for a group g of points: C = inverse_gg, error =
    C^-1 (inverse target)_g, variance = diag C^-1 (Rasmussen, Williams 5.12 is the group of one).
    """
    error, deviation = process.left_out()
    _, group = np.unique(process.points, axis=0, return_inverse=True)
    group = group.reshape(-1)
    for index in np.flatnonzero(np.bincount(group) > 1):
        rows = np.flatnonzero(group == index)
        variance = np.linalg.inv(process.inverse[np.ix_(rows, rows)])
        error[rows] = variance @ process.weights[rows]
        deviation[rows] = np.sqrt(np.diag(variance))
    return error, deviation
