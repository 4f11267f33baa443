"""KernelProfile: what is known of one device with one kernel library, fitted: what `profile_file` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.collective_curves import Curve
from simtool.hardware.fitted_process import GaussianProcess
from simtool.hardware.fitted_residual import SeparableResidual
from simtool.hardware.measured_device import MeasuredDevice
from simtool.hardware.roofline import RooflineLaw

Array = NDArray[np.float64]
REGIMES = ("launch", "memory", "compute")  # which term of the law is largest
INTERVAL = (0.05, 0.95)  # quantiles of every interval: 90% of what is measured lies inside


@dataclass(frozen=True, slots=True, kw_only=True)
class FitErrors:
    """Relative errors |predicted / measured - 1|; held-out rows are rows that the fit never saw.

    law_only: of the law without its residual, on the held-out rows. noise: between two measurements of one point
    (0 points: nothing was measured twice). coverage_90: share of held-out rows inside an interval that was set without
    them.
    """

    in_sample_points: int
    in_sample_median: float
    in_sample_p95: float
    held_out_points: int
    held_out_median: float
    held_out_p95: float
    law_only_median: float
    law_only_p95: float
    coverage_90: float
    noise_points: int = 0
    noise_median: float = 0.0
    noise_p95: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyFit:
    """A fitted law with its residual, of one operator family and dtype.

    intervals: [regime, 2] ends of the 90% interval in log, times the residual's own deviation; law_interval: [2] of the
    law without the residual; transfer_interval: [2] when the fit is carried to another device. skew: share of the way
    from the mean length's time to the longest one's that a decode batch of unequal lengths takes (0 where unknown).
    file: the profile that the user gave, "" for a shipped one.
    """

    family: str
    dtype: str
    device: str
    library: str
    peak_flops: float
    bandwidth_bytes_per_s: float
    law: RooflineLaw
    residual: SeparableResidual | GaussianProcess | None
    intervals: Array
    law_interval: Array
    transfer_interval: Array
    table: str
    kernels: tuple[str, ...]
    note: str
    refused_rows: int
    errors: FitErrors
    skew: float = 0.0
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointColumns:
    """Raw points of a fit. dims [N] each; seconds [N]; spread [N]: relative interquartile range of each repeat."""

    dims: Mapping[str, Array]
    seconds: Array
    spread: Array


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
    graph), "graph_replay" (starting one), "synchronize"; and of an engine's steps, where they were fitted to its runs:
    ENGINE_TIMES. spread: relative interquartile range of the repeats. source: what it was fitted to, "" where it was
    measured with the kernels."""

    name: str
    seconds: float
    spread: float
    source: str = ""


# A step's own time on the host; what each of its requests adds; what the device idles between steps even where host
# work is hidden; what a request waits outside the engine.
ENGINE_TIMES = ("step_base", "step_per_request", "gap", "request_latency")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelProfile:
    """All fits of a device and library: (family, dtype) -> fit; machine: what is known of the run that measured them.

    measured_device: what the device is, where the catalogue lacks it.
    points: raw points of the fits that keep them. curves: collectives, copies: transfers by size. file: its path where
    the user gave it, "" for a shipped one.
    """

    device: str
    library: str
    version: str
    source: str
    licence: str
    command: str
    machine: Mapping[str, str | float]
    fits: Mapping[tuple[str, str], FamilyFit]
    points: Mapping[tuple[str, str], PointColumns] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    copies: tuple[Curve, ...] = ()
    contention: tuple[Contention, ...] = ()
    host: tuple[HostTime, ...] = ()
    checksum: str = ""
    file: str = ""
    measured_device: MeasuredDevice | None = None
