"""Fit the laws that all measured devices share (hardware/transfer.py) to their tables. Deterministic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.fit_law import four_digits
from simtool.calibration.measurements import Measurements
from simtool.hardware.device import Device
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.kernel_profile import FamilyFit
from simtool.hardware.profile_choice import computes_in
from simtool.hardware.transfer import TransferLaw

Array = NDArray[np.float64]
Kind = tuple[str, str, str]  # library, family, dtype

SEED = 20260826
SAMPLE_ROWS = 2_000  # rows of a table that laws are fitted to and errors are counted on
LAW_ROWS = 3_000  # rows of all devices' tables of a kind together that one law is fitted to
# Priors of the parameters: mean, log deviation, least, most. They count as PRIOR_ROWS rows of ROW_ERROR log error. What
# devices share hardly depends on the dtype, so a narrow one's law starts from the 16-bit law, which saw more devices.
PRIOR_ROWS, ROW_ERROR = 20.0, 0.3
WIDER_ROWS, WIDER_DEVIATION = 1_000.0, 0.1
PARAMETERS: Mapping[str, tuple[float, float, float, float]] = {
    "launch_cycles": (16_000.0, 3.0, 1e3, 1e6),
    "compute_efficiency": (0.7, 0.5, 0.02, 1.2),
    "memory_efficiency": (0.8, 0.3, 0.02, 1.0),
    "exponent": (1.3, 0.5, 1.0, 8.0),
    "item_cycles": (2_600.0, 3.0, 0.25, 2.6e6),
    "serial_efficiency": (0.5, 1.0, 0.02, 5.0),
    "cache_bytes_per_cycle": (4.5, 1.0, 1.28, 64.0),
    "cache_share": (0.4, 0.7, 0.05, 1.5),
    "tail": (0.1, 1.5, 1e-4, 4.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Rows of one measured table (some of them) and the fit of the whole table."""

    device: Device
    fit: FamilyFit
    rows: Measurements

    @property
    def kind(self) -> Kind:
        """What is pooled over devices."""
        return self.fit.library, self.fit.family, self.fit.dtype


def sample_of(device: Device, fit: FamilyFit, rows: Measurements) -> Sample:
    """At most SAMPLE_ROWS of `rows`, drawn by a seed."""
    some = np.sort(np.random.default_rng(SEED).permutation(len(rows.seconds))[:SAMPLE_ROWS])
    return Sample(device=device, fit=fit, rows=rows.take(some))


def fit_laws(samples: Sequence[Sample]) -> dict[Kind, TransferLaw]:
    """A law for each kind in `samples`."""
    laws: dict[Kind, TransferLaw] = {}
    for kind in sorted({sample.kind for sample in samples}, key=lambda kind: (kind[2] != "bf16", kind)):
        tables = [(sample.device, sample.rows) for sample in samples if sample.kind == kind]
        laws[kind] = fit_transfer_law(tables, laws.get((*kind[:2], "bf16")))
    return laws


def fit_transfer_law(tables: Sequence[tuple[Device, Measurements]], wider: TransferLaw | None = None) -> TransferLaw:
    """Robust least squares on log error, as many rows from each device. wider: the 16-bit law, if any."""
    from scipy.optimize import least_squares

    rng, each = np.random.default_rng(SEED), max(LAW_ROWS // len(tables), 1)
    drawn = [(device, rows.take(rng.permutation(len(rows.seconds))[:each])) for device, rows in tables]
    works = [(device, rows, FAMILY_TERMS[rows.family].work(rows.dims, rows.dtype)) for device, rows in drawn]
    centre, deviation, lowest, highest = _prior(wider)

    def errors(parameters: Array) -> Array:
        law, parts = _law_of(np.exp(parameters)), [(parameters - centre) / deviation]
        for device, rows, work in works:
            found = law.log_seconds(work, device, rows.family, computes_in(rows.family, rows.dtype))
            parts.append(found - np.log(rows.seconds))
        return np.concatenate(parts)

    start = centre.copy()
    if wider is None:
        start[0] = np.log(min(float(rows.seconds.min()) * device.boost_hz for device, rows in drawn))
    start = np.clip(start, lowest + 1e-6, highest - 1e-6)
    found = least_squares(errors, start, bounds=(lowest, highest), loss="soft_l1", f_scale=0.1, max_nfev=60)
    return _law_of([four_digits(float(value)) for value in np.exp(found.x)])


def _prior(wider: TransferLaw | None) -> tuple[Array, Array, Array, Array]:
    """Centre, deviation (in units of the log error of a row), least and most of the log parameters."""
    mean, deviation, least, most = np.array(list(PARAMETERS.values())).T
    rows = PRIOR_ROWS
    if wider is not None:
        mean = np.array([getattr(wider, name) for name in PARAMETERS])
        deviation, rows = deviation * WIDER_DEVIATION, WIDER_ROWS
    return np.log(mean), deviation / (ROW_ERROR * np.sqrt(rows)), np.log(least), np.log(most)


def _law_of(parameters: Iterable[float]) -> TransferLaw:
    """The law with the given parameters, in the order of PARAMETERS."""
    return TransferLaw(**{name: float(value) for name, value in zip(PARAMETERS, parameters, strict=True)})
