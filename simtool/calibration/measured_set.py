"""MeasuredSet: everything measured on one device with one kernel library, before anything is fitted.

`simtool calibrate` and every importer produce it, the fit takes it. Nothing here needs more than numpy, so that the
profiling side runs inside an engine's container.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from simtool.calibration.collective_samples import Samples
from simtool.calibration.measurements import Measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class Contention:
    """Two workloads on two streams at once, and each alone. Seconds for one pass of each while the other kept running.

    first, second: what ran, as "gemm", "hbm_copy", "h2d", "d2h", "all_reduce".
    """

    first: str
    second: str
    first_alone_s: float
    second_alone_s: float
    first_together_s: float
    second_together_s: float

    @property
    def first_keeps(self) -> float:
        """Fraction of its lone speed that `first` keeps, in (0, 1]."""
        return min(1.0, self.first_alone_s / self.first_together_s)

    @property
    def second_keeps(self) -> float:
        """Fraction of its lone speed that `second` keeps, in (0, 1]."""
        return min(1.0, self.second_alone_s / self.second_together_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTime:
    """Time that the host spends, as "eager_launch" (one kernel launch), "graph_launch" (one kernel of a replayed CUDA
    graph), "graph_replay" (starting one), "synchronize". spread: relative interquartile range of the repeats."""

    name: str
    seconds: float
    spread: float


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
