"""OffloadUse: what expert offload did in a run: hits, loads, stalls, use of the link."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
STALL_CAUSES = ("missed", "late", "CPU")


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadUse:
    """One row a step of an offloaded replica, in order of its start.

    start_s, end_s: float64[steps]. needed, hits, loads, cpu: int64[steps], experts of all layers that the step needed;
    of these, those in HBM or on the way; loads to HBM; those that the CPU computed. stall_s: float64[steps, 3] waiting
    for a missing expert, for a prefetch that came late, for the CPU. link_busy_s: float64[steps], of one device's link.
    layer_needed, layer_hits: int64[layers], of all steps.
    """

    start_s: F8
    end_s: F8
    needed: I8
    hits: I8
    loads: I8
    cpu: I8
    stall_s: F8
    link_busy_s: F8
    layer_needed: I8
    layer_hits: I8

    @property
    def hit_rate(self) -> float:
        """Share of needed experts that were there; NaN where none was needed."""
        needed = int(self.needed.sum())
        return int(self.hits.sum()) / needed if needed else float("nan")

    @property
    def busy_s(self) -> float:
        """Seconds of all steps."""
        return float((self.end_s - self.start_s).sum())

    @property
    def stalled_share(self) -> float:
        """Share of the steps' time that waited for experts."""
        return float(self.stall_s.sum()) / self.busy_s if self.busy_s else 0.0

    @property
    def link_share(self) -> float:
        """Share of the steps' time in which the link was busy."""
        return float(self.link_busy_s.sum()) / self.busy_s if self.busy_s else 0.0
