"""Peaks: the rates that a fit's efficiencies are fractions of. From the catalogue, or what the measurements reached.

The catalogue's numbers are read without pydantic, so that a fit runs where only torch, numpy and scipy are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from simtool.calibration.measurements import Measurements
from simtool.hardware.device import device_aliases, device_names, read_catalogue
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.profile_choice import computes_in
from simtool.units import GB, TERA

_WIDER: Mapping[str, str] = {"fp8": "bf16", "int8": "bf16", "fp4": "bf16", "bf16": "fp16", "fp16": "fp32"}
REACHED_QUANTILE = 0.98  # of the rates in a table: the highest one may be an outlier


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """flops: dense FLOP/s by dtype. hbm_bytes_per_s: memory bandwidth. source: where they come from."""

    flops: Mapping[str, float]
    hbm_bytes_per_s: float
    source: str

    def peak_flops(self, dtype: str) -> float:
        """FLOP/s in `dtype`, or in the wider one that kernels use where the device has no rate of its own."""
        current = dtype
        while current not in self.flops and current in _WIDER:
            current = _WIDER[current]
        return self.flops.get(current, max(self.flops.values()))


def peaks_of(device: str, tables: Iterable[Measurements]) -> Peaks:
    """The catalogue's peaks of `device`, or for a device that it lacks those that the tables reached."""
    name = device_aliases().get(device, device)
    if name not in device_names():
        return reached_peaks(tables)
    entry = read_catalogue(f"devices/{name}.toml")
    rates = {key.removesuffix("_tflops"): value * TERA for key, value in entry["compute"].items() if key != "source"}
    return Peaks(flops=rates, hbm_bytes_per_s=entry["memory"]["hbm_gb_per_s"] * GB, source=f"catalogue: {name}")


def reached_peaks(tables: Iterable[Measurements]) -> Peaks:
    """The highest rates in the tables: of GEMMs and experts by compute dtype, of all kernels' bytes."""
    rates: dict[str, list[float]] = {}
    moved: list[float] = []
    for rows in tables:
        if rows.family not in FAMILY_TERMS or not len(rows.seconds):
            continue
        work = FAMILY_TERMS[rows.family].work(rows.dims, rows.dtype)
        moved.append(_high(work.hbm_bytes / rows.seconds))
        if rows.family in ("gemm", "moe"):
            rates.setdefault(computes_in(rows.family, rows.dtype), []).append(_high(work.flops / rows.seconds))
    flops = {dtype: max(found) for dtype, found in sorted(rates.items())}
    return Peaks(
        flops=flops or {"fp32": 1e12}, hbm_bytes_per_s=max(moved, default=1e11), source="reached by the tables"
    )


def _high(rate: np.ndarray) -> float:
    return float(np.quantile(rate, REACHED_QUANTILE))
