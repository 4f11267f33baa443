"""MeasuredSet → profile: every family fitted, written as the JSON that `simtool.hardware.profile_file` loads.

Needs numpy and scipy only, so that a profile can be made where it was measured.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.described import described_device
from simtool.calibration.fit_collectives import fit_curve
from simtool.calibration.fit_family import MOST_PROCESS_ROWS, FittedFamily, fit_family
from simtool.calibration.fit_skew import with_skew
from simtool.calibration.measured_set import HostTime, MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.calibration.peaks import Peaks, peaks_of
from simtool.errors import InputError
from simtool.files import output_file
from simtool.hardware.collective_curves import curve_entry
from simtool.hardware.fitted_process import GaussianProcess
from simtool.hardware.fitted_residual import FACTOR_SCALE, SeparableResidual
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.profile_choice import computes_in
from simtool.hardware.profile_file import profile_bytes

Array = NDArray[np.float64]
SCHEMA_VERSION = 2
FEWEST_SIZES = 4  # sizes that make a curve
FEWEST_POINTS = 5  # points that make a law
DEFAULT_TRANSFER = (
    float(np.log(0.55)),
    float(np.log(2.0)),
)  # where no other device has the family; see docs/validation


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTable:
    """A fit with the rows that it came from. note: what a reader of a price should know of it."""

    rows: Measurements
    fit: FittedFamily
    note: str = ""
    transfer: tuple[float, float] = DEFAULT_TRANSFER


def fit_set(
    measured: MeasuredSet, *, seed: int, tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr)
) -> list[FittedTable]:
    """Fit every table of `measured` that has a law (whole steps have none); `tell` is told a line a table."""
    peaks = peaks_of(measured.device, measured.tables)
    fits = []
    for rows, skewed in _tables_with_skew(measured):
        if len(rows.seconds) < FEWEST_POINTS:
            tell(f"{rows.family}/{rows.dtype}: {len(rows.seconds)} points are too few, left out")
            continue
        fitted = fit_table(rows, peaks, seed)
        if skewed is not None:
            fitted = replace(fitted, fit=with_skew(fitted.fit, skewed))
        tell(error_line(fitted))
        fits.append(fitted)
    return fits


def _tables_with_skew(measured: MeasuredSet) -> Iterator[tuple[Measurements, Measurements | None]]:
    """The tables that have a law, the largest of a family and dtype, each with its batches of unequal lengths.

    A table with kv_max gives its equal batches to the fit where no other table of the family and dtype is there.
    """
    groups: dict[tuple[str, str], list[Measurements]] = {}
    for rows in measured.tables:
        if rows.family in FAMILY_TERMS:
            groups.setdefault((rows.family, rows.dtype), []).append(rows)
    for tables in groups.values():
        equal = [rows for rows in tables if "kv_max" not in rows.dims]
        unequal = [rows for rows in tables if "kv_max" in rows.dims]
        parts = [rows.take(rows.dims["kv_max"] > rows.dims["kv_len"]) for rows in unequal]
        equal = equal or [_without_longest(rows) for rows in unequal]
        yield max(equal, key=lambda rows: len(rows.seconds)), parts[0] if parts else None


def _without_longest(rows: Measurements) -> Measurements:
    """The batches of equal lengths, without the dim that says the longest."""
    some = rows.take(rows.dims["kv_max"] <= rows.dims["kv_len"])
    return replace(some, dims={name: column for name, column in some.dims.items() if name != "kv_max"})


def fit_table(rows: Measurements, peaks: Peaks, seed: int) -> FittedTable:
    """Fit one family and dtype. Times are rounded as they are stored first, so that the file says the whole truth."""
    rounded = replace(rows, seconds=np.array([float(f"{value:.5g}") for value in rows.seconds]))
    peak = peaks.peak_flops(computes_in(rows.family, rows.dtype))
    return FittedTable(rows=rounded, fit=fit_family(rounded, peak, peaks.hbm_bytes_per_s, seed))


def error_line(fitted: FittedTable) -> str:
    """One line: held-out error beside the noise of the measurements themselves."""
    e = fitted.fit.errors
    noise = f", noise {100 * e.noise_median:.1f}%" if e.noise_points else ""
    points = e.in_sample_points
    return (
        f"{fitted.rows.family}/{fitted.rows.dtype}: {points} points, held out {100 * e.held_out_median:.1f}% median, "
        f"{100 * e.held_out_p95:.1f}% p95{noise}, 90% interval covers {100 * e.coverage_90:.0f}%"
    )


def profile_table(measured: MeasuredSet, fits: Sequence[FittedTable], *, command: str) -> dict[str, Any]:
    """The JSON object of a profile, without its checksum. InputError where nothing at all could be fitted."""
    curves = [fit_curve(samples) for samples in measured.collectives if _enough(samples.size_bytes)]
    copies = [fit_curve(samples) for samples in measured.copies if _enough(samples.size_bytes)]
    if not fits and not curves and not copies:
        raise InputError(measured.source or measured.device, "holds too few points for any fit", "measure more")
    device = described_device(measured)
    bandwidth = fits[0].fit.bandwidth_bytes_per_s if fits else peaks_of(measured.device, ()).hbm_bytes_per_s
    return {
        "schema_version": SCHEMA_VERSION,
        "device": measured.device,
        "library": measured.library,
        "version": measured.version,
        "bandwidth_bytes_per_s": bandwidth,
        "source": measured.source,
        "licence": measured.licence,
        "command": command,
        "machine": dict(measured.machine),
        "fits": [fit_entry(fitted) for fitted in fits],
        "curves": [curve_entry(curve) for curve in curves],
        "copies": [curve_entry(curve) for curve in copies],
        "contention": [asdict(pair) for pair in measured.contention],
        "host": [host_entry(time) for time in measured.host],
        **({"measured_device": device} if device else {}),
    }


def host_entry(time: HostTime) -> dict[str, Any]:
    """A host time as it is stored."""
    return {name: value for name, value in asdict(time).items() if name != "source" or value}


def _enough(size: Array) -> bool:
    return len(np.unique(size)) >= FEWEST_SIZES


def fit_entry(fitted: FittedTable) -> dict[str, Any]:
    """A fit as it is stored. Few points are stored whole, for the process and for the report."""
    fit, rows = fitted.fit, fitted.rows
    return {
        "family": rows.family,
        "dtype": rows.dtype,
        "peak_flops": fit.peak_flops,
        "table": rows.table,
        "kernels": list(rows.kernels),
        "note": fitted.note,
        "refused_rows": len(rows.refused),
        "law": asdict(fit.law),
        "residual": _residual_entry(fit.residual),
        "log_interval": fit.intervals.tolist(),
        "law_log_interval": fit.law_interval.tolist(),
        "transfer_log_interval": [round(end, 4) for end in fitted.transfer],
        "errors": asdict(fit.errors),
        "skew": fit.skew,
        "points": _points_entry(rows) if len(rows.seconds) <= MOST_PROCESS_ROWS else None,
    }


def _points_entry(rows: Measurements) -> dict[str, Any]:
    whole = {name: [int(v) if v == int(v) else v for v in column.tolist()] for name, column in rows.dims.items()}
    return {"dims": whole, "seconds": rows.seconds.tolist(), "spread": [round(float(s), 4) for s in rows.spread]}


def _residual_entry(residual: SeparableResidual | GaussianProcess | None) -> dict[str, Any] | None:
    if residual is None:
        return None
    if isinstance(residual, GaussianProcess):
        scales = residual.scales.tolist()
        return {"kind": "process", "scales": scales, "signal": residual.signal, "noise": residual.noise}
    return {
        "kind": "separable",
        "knots": [[round(float(v), 4) for v in knots] for knots in residual.knots],
        "factors": [_steps(factor) for factor in residual.factors],
        "rank": residual.factors[0].shape[1],
        "limit": residual.limit,
    }


def _steps(factor: Array) -> list[int]:
    """[L, R] in units of FACTOR_SCALE, term by term, as steps from knot to knot: small numbers pack better."""
    whole = np.round(factor / FACTOR_SCALE).astype(np.int64)
    return [int(step) for step in np.diff(whole, axis=0, prepend=0).T.reshape(-1)]


def write_profile(table: dict[str, Any], path: Path) -> None:
    """Write the profile's JSON object to `path` (.json, or .json.gz packed), whole or not at all."""
    data = profile_bytes(table, packed=path.name.endswith(".gz"))
    with output_file(path) as building:
        building.write_bytes(data)


def profile_name(measured: MeasuredSet) -> str:
    """The usual file name: DEVICE__LIBRARY__VERSION.json."""
    parts = [measured.device, measured.library, measured.version or "unknown"]
    return "__".join("".join(c if c.isalnum() or c in ".-+" else "-" for c in part) for part in parts) + ".json"


def refusals(measured: MeasuredSet) -> Iterator[str]:
    """A line a refused row."""
    for rows in measured.tables:
        for refusal in rows.refused:
            yield f"{rows.table}: line {refusal.line} refused: {refusal.reason}"
