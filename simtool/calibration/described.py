"""Described: what a measured set says of its device, for the profile of a device that the catalogue lacks."""

from __future__ import annotations

from typing import Any

from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.peaks import peaks_of
from simtool.hardware.device import device_aliases, device_names

_TEXT = {"label": "device_label", "compute_capability": "device_capability"}
_RATES = {"cache_bytes": "device_cache_bytes", "clock_hz": "device_clock_hz"}


def described_device(measured: MeasuredSet) -> dict[str, Any] | None:
    """`MeasuredDevice` as a profile stores it: the machine's own facts and the rates that its kernels reached.

    None where the catalogue knows the device, where no multiplication was measured, and for measurements without the
    facts that `profiling.self_description` writes (made elsewhere, or by an older simtool).
    """
    facts, names = measured.machine, device_names()
    multiplied = any(rows.family in ("gemm", "moe") and len(rows.seconds) for rows in measured.tables)
    known = device_aliases().get(measured.device, measured.device) in names
    needed = ("device_kind", "device_memory_bytes", "device_count", "device_units")
    if known or not multiplied or any(name not in facts for name in needed):
        return None
    peaks = peaks_of(measured.device, measured.tables)
    return {
        "kind": facts["device_kind"],
        "memory_bytes": float(facts["device_memory_bytes"]),
        "count": int(facts["device_count"]),
        "units": int(facts["device_units"]),
        "flops": dict(peaks.flops),
        "bytes_per_s": peaks.hbm_bytes_per_s,
        "label": measured.device,
        **{name: str(facts[fact]) for name, fact in _TEXT.items() if fact in facts},
        **{name: float(facts[fact]) for name, fact in _RATES.items() if fact in facts},
    }
