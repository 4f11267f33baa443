"""Kernel profiles as files: JSON, plain or gzip, with a checksum. Fitted by `simtool.calibration`, loaded without
executing anything."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from simtool.errors import InputError
from simtool.hardware.collective_curves import curve_of
from simtool.hardware.fitted_process import GaussianProcess
from simtool.hardware.fitted_residual import FACTOR_SCALE, SeparableResidual
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.kernel_profile import (
    REGIMES,
    Contention,
    FamilyFit,
    FitErrors,
    HostTime,
    KernelProfile,
    PointColumns,
)
from simtool.hardware.measured_device import MeasuredDevice
from simtool.hardware.roofline import RooflineLaw

if TYPE_CHECKING:
    from pydantic import BaseModel

    from simtool.hardware.profile_entries import FitEntry, PointsEntry, ProfileEntry, SeparableEntry

Shape = TypeVar("Shape", bound="BaseModel")

MAX_PROFILE_BYTES = 50_000_000  # unpacked; a shipped profile takes well under 1 MB
MOST_PROCESS_POINTS = 2_000  # a process is inverted when it is loaded
_HINT = "calibrate or fit it again (simtool calibrate)"


def checksum(table: Mapping[str, Any]) -> str:
    """SHA-256 of the profile's JSON without its checksum, keys sorted, no spaces."""
    rest = {key: value for key, value in table.items() if key != "checksum"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def profile_bytes(table: Mapping[str, Any], *, packed: bool) -> bytes:
    """The file content of a profile's JSON object, its checksum added: the same bytes for the same numbers."""
    whole = {**table, "checksum": checksum(table)}
    text = json.dumps(whole, indent=None if packed else 1, separators=(",", ":") if packed else None, allow_nan=False)
    return gzip.compress(text.encode(), compresslevel=9, mtime=0) if packed else text.encode() + b"\n"


def parse_profile(data: bytes, name: str) -> KernelProfile:
    """The profile in JSON bytes, plain or gzip; `name` is for messages. InputError when it is not one."""
    from simtool.hardware.profile_entries import SCHEMA_VERSION, ProfileEntry

    return _profile_of(parse_entry(data, name, ProfileEntry, SCHEMA_VERSION), name)


def parse_entry(data: bytes, name: str, shape: type[Shape], schema: int) -> Shape:
    """JSON bytes, plain or gzip, as `shape`; InputError for another schema, a wrong checksum or another content."""
    from pydantic import ValidationError

    table = _json_object(profile_text(data, name), name)
    if table.get("schema_version") != schema:
        found = table.get("schema_version")
        raise InputError(name, f"has profile schema {found}, this version reads {schema}", _HINT)
    if table.get("checksum") != checksum(table):
        raise InputError(name, "does not match its checksum: it was cut, damaged or edited", _HINT)
    try:
        return shape.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(name, f"is not a kernel profile: {where}: {first['msg']}", _HINT) from None


def profile_text(data: bytes, name: str) -> bytes:
    """The JSON text in a profile's bytes, plain or gzip. InputError where it is cut, or larger than a profile."""
    if data[:2] != b"\x1f\x8b":
        if len(data) > MAX_PROFILE_BYTES:
            raise InputError(name, "is larger than a profile can be", _HINT)
        return data
    try:
        unpacker = zlib.decompressobj(wbits=31)
        text = unpacker.decompress(data, MAX_PROFILE_BYTES)
    except zlib.error as error:
        raise InputError(name, f"is not a kernel profile: {error}", _HINT) from None
    if not unpacker.eof:
        raise InputError(name, "is cut short or unpacks to more than a profile can hold", _HINT)
    return text


def _json_object(text: bytes, name: str) -> dict[str, Any]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(name, f"is not a kernel profile: {error}", _HINT) from None
    if not isinstance(table, dict):
        raise InputError(name, "is not a kernel profile: no JSON object", _HINT)
    return table


def _profile_of(entry: ProfileEntry, name: str) -> KernelProfile:
    kept = [(fit, _points_of(fit.points, f"{name}: {fit.family}/{fit.dtype}")) for fit in entry.fits if fit.points]
    points = {(fit.family, fit.dtype): columns for fit, columns in kept}
    return KernelProfile(
        device=entry.device,
        library=entry.library,
        version=entry.version,
        source=entry.source,
        licence=entry.licence,
        command=entry.command,
        machine=entry.machine,
        fits={(fit.family, fit.dtype): _fit_of(fit, entry, points, name) for fit in entry.fits},
        points=points,
        curves=tuple(curve_of(curve.model_dump(), name) for curve in entry.curves),
        copies=tuple(curve_of(curve.model_dump(), name) for curve in entry.copies),
        contention=tuple(Contention(**pair.model_dump()) for pair in entry.contention),
        host=tuple(HostTime(**time.model_dump()) for time in entry.host),
        checksum=entry.checksum,
        measured_device=_measured_device_of(entry),
    )


def _measured_device_of(entry: ProfileEntry) -> MeasuredDevice | None:
    found = entry.measured_device
    return None if found is None else MeasuredDevice(name=entry.device, **found.model_dump(exclude_none=True))


def _points_of(entry: PointsEntry, name: str) -> PointColumns:
    dims = {key: np.array(column, dtype=np.float64) for key, column in entry.dims.items()}
    if {len(column) for column in dims.values()} | {len(entry.spread)} != {len(entry.seconds)}:
        raise InputError(name, "the columns of its points differ in length", _HINT)
    return PointColumns(dims=dims, seconds=np.array(entry.seconds), spread=np.array(entry.spread))


def _fit_of(fit: FitEntry, entry: ProfileEntry, points: Mapping[tuple[str, str], PointColumns], name: str) -> FamilyFit:
    where = f"{name}: {fit.family}/{fit.dtype}"
    intervals = np.array(fit.log_interval, dtype=np.float64)
    if intervals.shape != (len(REGIMES), 2) or fit.family not in FAMILY_TERMS:
        raise InputError(where, "an unknown family or an interval of the wrong shape", _HINT)
    law = RooflineLaw(**fit.law.model_dump())
    residual: SeparableResidual | GaussianProcess | None = None
    if fit.residual is not None and fit.residual.kind == "separable":
        residual = _separable_of(fit.residual, where)
        if len(residual.knots) != len(FAMILY_TERMS[fit.family].names):
            raise InputError(where, f"its residual has {len(residual.knots)} features, the family has others", _HINT)
    elif fit.residual is not None:
        columns = points.get((fit.family, fit.dtype))
        if columns is None or len(columns.seconds) > MOST_PROCESS_POINTS:
            raise InputError(where, f"a process needs its points, {MOST_PROCESS_POINTS} at most", _HINT)
        shape = (np.array(fit.residual.scales), fit.residual.signal, fit.residual.noise)
        residual = process_of(fit, columns, law, entry.bandwidth_bytes_per_s, shape, where)
    return FamilyFit(
        family=fit.family,
        dtype=fit.dtype,
        device=entry.device,
        library=entry.library,
        peak_flops=fit.peak_flops,
        bandwidth_bytes_per_s=entry.bandwidth_bytes_per_s,
        law=law,
        residual=residual,
        intervals=intervals,
        law_interval=np.array(fit.law_log_interval, dtype=np.float64),
        transfer_interval=np.array(fit.transfer_log_interval, dtype=np.float64),
        table=fit.table,
        kernels=tuple(fit.kernels),
        note=fit.note,
        refused_rows=fit.refused_rows,
        errors=FitErrors(**fit.errors.model_dump()),
        skew=fit.skew,
    )


def process_of(
    fit: FitEntry,
    columns: PointColumns,
    law: RooflineLaw,
    bandwidth: float,
    shape: tuple[np.ndarray, float, float],
    name: str,
) -> GaussianProcess:
    """The process over a fit's points: what is left of them beside the law."""
    terms = FAMILY_TERMS[fit.family]
    try:
        features = terms.features(columns.dims)
        work = terms.work(columns.dims, fit.dtype)
    except KeyError as error:
        raise InputError(name, f"its points lack {error}", _HINT) from None
    scales, signal, noise = shape
    if features.shape[1] != len(scales):
        raise InputError(name, f"has {len(scales)} length scales for {features.shape[1]} features", _HINT)
    target = np.log(columns.seconds) - np.log(law.seconds(work, fit.peak_flops, bandwidth))
    return GaussianProcess(points=features, target=target, scales=scales, signal=signal, noise=noise)


def _separable_of(entry: SeparableEntry, name: str) -> SeparableResidual:
    """The residual that an entry stores; InputError when its shapes disagree or its knots do not increase."""
    knots = tuple(np.array(k, dtype=np.float64) for k in entry.knots)
    sizes = [len(k) * entry.rank for k in knots]
    if sizes != [len(f) for f in entry.factors] or any(not len(k) or np.any(np.diff(k) <= 0) for k in knots):
        raise InputError(name, "residual knots and factors do not fit together", _HINT)
    factors = tuple(
        np.cumsum(np.array(f, dtype=np.float64).reshape(entry.rank, len(k)), axis=1).T * FACTOR_SCALE
        for k, f in zip(knots, entry.factors, strict=True)
    )
    return SeparableResidual(knots=knots, factors=factors, limit=entry.limit)


def read_profile(path: Path) -> KernelProfile:
    """The profile in the file `path`."""
    try:
        if path.stat().st_size > MAX_PROFILE_BYTES:
            raise InputError(path, "is larger than a profile can be", _HINT)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "a profile, .json or .json.gz") from None
    return parse_profile(data, str(path))


@cache
def load_shipped_profiles() -> tuple[KernelProfile, ...]:
    """All profiles that come with simtool (DEVICE__LIBRARY.json.gz), sorted by file name; read once, 0.4 s."""
    folder = files("simtool.hardware").joinpath("profiles")
    if not folder.is_dir():
        return ()
    shipped = [item for item in folder.iterdir() if "__" in item.name and item.name.endswith(".json.gz")]
    items = sorted(shipped, key=lambda item: item.name)
    return tuple(parse_profile(item.read_bytes(), item.name) for item in items)
