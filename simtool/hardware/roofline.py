"""The smooth roofline: one law for every kernel family, with fitted efficiencies.

    seconds = (launch^p + (flops / (e_c * peak))^p + (bytes / (e_m * bandwidth))^p)^(1/p)
              + items * item_s + serial_bytes / (e_s * bandwidth)

The p-norm is a soft maximum: p = 1 adds the terms (nothing overlaps), p -> infinity takes the largest (everything
overlaps). Williams, Waterman, Patterson, "Roofline", CACM 2009, with the corner rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a kernel call has to do, arrays of shape [b].

    items: units that each cost a fixed time (thread blocks of a decode attention, activated experts).
    serial_bytes: traffic of a second kernel inside the call that cannot overlap (quantising activations).
    """

    flops: Array
    hbm_bytes: Array
    items: Array = field(default_factory=lambda: np.zeros(1))
    serial_bytes: Array = field(default_factory=lambda: np.zeros(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineLaw:
    """Fitted parameters of the law. Efficiencies are fractions of the peak and bandwidth they were fitted against."""

    launch_s: float
    compute_efficiency: float
    memory_efficiency: float
    exponent: float
    item_s: float = 0.0
    serial_efficiency: float = 1.0

    def seconds(self, work: Work, peak_flops: float, bandwidth_bytes_per_s: float) -> Array:
        """Seconds of one call, [b]; 0 where there is no work at all. Finite for any finite work."""
        flops, moved, items, serial = np.broadcast_arrays(work.flops, work.hbm_bytes, work.items, work.serial_bytes)
        compute = flops / (self.compute_efficiency * peak_flops)
        memory = moved / (self.memory_efficiency * bandwidth_bytes_per_s)
        top = np.maximum(np.maximum(compute, memory), self.launch_s)
        # scaled by the largest term, so that no power overflows or underflows
        scaled = (compute / top) ** self.exponent + (memory / top) ** self.exponent
        soft = top * (scaled + (self.launch_s / top) ** self.exponent) ** (1.0 / self.exponent)
        extra = items * self.item_s + serial / (self.serial_efficiency * bandwidth_bytes_per_s)
        return np.where(flops + moved > 0, soft + extra, 0.0)


def floor_seconds(work: Work, peak_flops: float, bandwidth_bytes_per_s: float) -> Array:
    """The specification's floor, [b]: max of compute and memory time at full rate."""
    return np.maximum(work.flops / peak_flops, work.hbm_bytes / bandwidth_bytes_per_s)


def regimes(law: RooflineLaw, work: Work, peak: float, bandwidth: float) -> NDArray[np.intp]:
    """Index into kernel_profile.REGIMES of the law's largest term, [b]."""
    flops, moved = np.broadcast_arrays(work.flops, work.hbm_bytes)
    launch = np.full(flops.shape, law.launch_s)
    memory = moved / (law.memory_efficiency * bandwidth)
    compute = flops / (law.compute_efficiency * peak)
    return np.asarray(np.stack([launch, memory, compute]).argmax(axis=0))
