"""MeasuredSet: everything measured on one device with one kernel library, before anything is fitted.

`simtool calibrate` and every importer produce it, the fit takes it. Nothing here needs more than numpy, so that the
profiling side runs inside an engine's container.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from simtool.calibration.collective_samples import Samples
from simtool.calibration.measurements import Measurements
from simtool.hardware.kernel_profile import Contention, HostTime

__all__ = ["Contention", "HostTime", "MeasuredSet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSet:
    """device: a catalogue name, or another name for a device that the catalogue lacks. version: of the library.

    machine: what is known of the run: date, driver, torch, cuda, clocks, threads, seed, sentinel drift.
    tables: one a family and dtype; a repeated point is two rows with the same dims. copies: kind "h2d_pinned",
    "h2d_pageable", "d2h_pinned", "d2h_pageable" or "hbm"; ranks 1.
    """

    device: str
    library: str
    version: str
    source: str
    licence: str = ""
    machine: Mapping[str, str | float] = field(default_factory=dict)
    tables: tuple[Measurements, ...] = ()
    collectives: tuple[Samples, ...] = ()
    copies: tuple[Samples, ...] = ()
    contention: tuple[Contention, ...] = ()
    host: tuple[HostTime, ...] = ()
