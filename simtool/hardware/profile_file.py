"""Kernel profiles: the fitted numbers that `simtool.calibration.fit_kernels` writes, as gzip JSON in `profiles/`."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simtool.errors import InputError
from simtool.hardware.fitted_residual import SeparableResidual
from simtool.hardware.roofline import RooflineLaw

MAX_PROFILE_BYTES = 20_000_000  # unpacked; a shipped profile takes well under 1 MB
FACTOR_SCALE = 1e-3  # residual factors are stored as integers of this unit
REGIMES = ("launch", "memory", "compute")  # which term of the law is largest


class LawEntry(BaseModel):
    """RooflineLaw as stored."""

    model_config = ConfigDict(extra="forbid", strict=False)
    launch_s: float = Field(ge=0, lt=1)
    compute_efficiency: float = Field(gt=0, le=2)
    memory_efficiency: float = Field(gt=0, le=4)
    exponent: float = Field(ge=1, le=64)
    item_s: float = Field(default=0.0, ge=0, lt=1)
    serial_efficiency: float = Field(default=1.0, gt=0, le=8)


class ResidualEntry(BaseModel):
    """SeparableResidual as stored: knots in log2, factors as integers of FACTOR_SCALE."""

    model_config = ConfigDict(extra="forbid")
    knots: list[list[float]]
    factors: list[list[int]]
    rank: int = Field(ge=1, le=64)
    limit: float = Field(ge=0, le=20)


class ErrorsEntry(BaseModel):
    """Relative errors |predicted / measured - 1|; held_out rows are whole shapes the fit never saw."""

    model_config = ConfigDict(extra="forbid")
    in_sample_points: int
    in_sample_median: float
    in_sample_p95: float
    held_out_points: int
    held_out_median: float
    held_out_p95: float
    law_only_median: float
    law_only_p95: float
    coverage_80: float


class FitEntry(BaseModel):
    """One family and dtype: where the rows came from, the law, the residual, the errors, the interval."""

    model_config = ConfigDict(extra="forbid")
    family: str
    dtype: str
    peak_flops: float = Field(gt=0)
    table: str
    kernels: list[str]
    note: str = ""
    refused_rows: int
    law: LawEntry
    residual: ResidualEntry | None
    log_interval: list[list[float]]  # [regime][10%, 90%] of log(measured / predicted), held out
    law_log_interval: list[float]  # the same for the law alone
    transfer_log_interval: list[float]  # the same when the law is carried over from another device by specification
    errors: ErrorsEntry


class ProfileEntry(BaseModel):
    """One device and kernel library."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int
    device: str
    library: str
    bandwidth_bytes_per_s: float = Field(gt=0)
    source: str
    licence: str
    command: str
    fits: list[FitEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyFit:
    """A fitted law with its residual. intervals: [regime, 2] log quantiles; law_interval: [2] without the residual;
    transfer_interval: [2] when the fit is carried to another device."""

    family: str
    dtype: str
    device: str
    library: str
    peak_flops: float
    bandwidth_bytes_per_s: float
    law: RooflineLaw
    residual: SeparableResidual | None
    intervals: np.ndarray
    law_interval: np.ndarray
    transfer_interval: np.ndarray
    table: str
    note: str
    errors: ErrorsEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelProfile:
    """All fits of a device and library: (family, dtype) -> fit."""

    device: str
    library: str
    fits: Mapping[tuple[str, str], FamilyFit]


def parse_profile(data: bytes, name: str) -> KernelProfile:
    """The profile in gzip JSON bytes; `name` is for messages. InputError when it is not one."""
    try:
        unpacker = zlib.decompressobj(wbits=31)
        text = unpacker.decompress(data, MAX_PROFILE_BYTES)
        if not unpacker.eof:
            raise InputError(name, "is cut short or unpacks to more than a profile can hold", "fit it again")
        entry = ProfileEntry.model_validate_json(text)
    except (zlib.error, ValidationError) as error:
        raise InputError(name, f"is not a kernel profile: {error}", "fit it again with simtool.calibration") from None
    if entry.schema_version != 1:
        raise InputError(name, f"has profile schema {entry.schema_version}, this version reads 1", "fit it again")
    fits = {(fit.family, fit.dtype): _fit_of(fit, entry, name) for fit in entry.fits}
    return KernelProfile(device=entry.device, library=entry.library, fits=fits)


def _fit_of(fit: FitEntry, entry: ProfileEntry, name: str) -> FamilyFit:
    intervals = np.array(fit.log_interval, dtype=np.float64)
    if intervals.shape != (len(REGIMES), 2) or {len(fit.law_log_interval), len(fit.transfer_log_interval)} != {2}:
        raise InputError(name, f"{fit.family}/{fit.dtype}: the interval has the wrong shape", "fit it again")
    return FamilyFit(
        family=fit.family,
        dtype=fit.dtype,
        device=entry.device,
        library=entry.library,
        peak_flops=fit.peak_flops,
        bandwidth_bytes_per_s=entry.bandwidth_bytes_per_s,
        law=RooflineLaw(**fit.law.model_dump()),
        residual=None if fit.residual is None else residual_of(fit.residual, f"{name}: {fit.family}/{fit.dtype}"),
        intervals=intervals,
        law_interval=np.array(fit.law_log_interval, dtype=np.float64),
        transfer_interval=np.array(fit.transfer_log_interval, dtype=np.float64),
        table=fit.table,
        note=fit.note,
        errors=fit.errors,
    )


def residual_of(entry: ResidualEntry, name: str) -> SeparableResidual:
    """The residual that an entry stores; InputError when its shapes disagree or its knots do not increase."""
    knots = tuple(np.array(k, dtype=np.float64) for k in entry.knots)
    sizes = [len(k) * entry.rank for k in knots]
    if sizes != [len(f) for f in entry.factors] or any(not len(k) or np.any(np.diff(k) <= 0) for k in knots):
        raise InputError(name, "residual knots and factors do not fit together", "fit it again")
    factors = tuple(
        np.array(f, dtype=np.float64).reshape(len(k), entry.rank) * FACTOR_SCALE
        for k, f in zip(knots, entry.factors, strict=True)
    )
    return SeparableResidual(knots=knots, factors=factors, limit=entry.limit)


def stored_residual(residual: SeparableResidual) -> ResidualEntry:
    """A residual rounded as it is stored."""
    return ResidualEntry(
        knots=[[round(float(v), 4) for v in k] for k in residual.knots],
        factors=[[round(float(v) / FACTOR_SCALE) for v in f.reshape(-1)] for f in residual.factors],
        rank=residual.factors[0].shape[1],
        limit=round(residual.limit, 3),
    )


def profile_bytes(entry: ProfileEntry) -> bytes:
    """The file content: gzip JSON, the same bytes for the same numbers (no time stamp)."""
    text = json.dumps(entry.model_dump(), separators=(",", ":"), allow_nan=False)
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def read_profile(path: Path) -> KernelProfile:
    """The profile in the file `path`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "a *.json.gz profile") from None
    return parse_profile(data, str(path))


def load_shipped_profiles() -> tuple[KernelProfile, ...]:
    """All profiles that come with simtool, sorted by file name."""
    folder = files("simtool.hardware").joinpath("profiles")
    if not folder.is_dir():
        return ()
    items = sorted((i for i in folder.iterdir() if i.name.endswith(".json.gz")), key=lambda item: item.name)
    return tuple(parse_profile(item.read_bytes(), item.name) for item in items)
