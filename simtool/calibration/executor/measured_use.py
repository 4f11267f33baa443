"""What offloaded experts did in a run, in the simulator's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.real_clock import RunStep
from simtool.offload_use import STALL_CAUSES, OffloadUse

_COPIES = "copies"  # the operator family


def measured_use(steps: Sequence[RunStep], spans: Mapping[str, NDArray[np.float64]]) -> OffloadUse | None:
    """None where no expert is offloaded. spans: start_s and end_s of the steps.

    A CPU waits while it copies, which is the stall and the link's time; on a GPU nothing is timed apart (NaN).
    """
    counts = [step.outcome.experts for step in steps]
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        return None
    by_step = np.stack(known)  # [steps, layers, 2]
    copied_s = np.array([_copied_s(step) for step in steps])
    stall_s = np.zeros((len(steps), len(STALL_CAUSES)))
    stall_s[:, 0] = copied_s
    hits, misses = by_step[:, :, 0], by_step[:, :, 1]
    return OffloadUse(
        start_s=spans["start_s"],
        end_s=spans["end_s"],
        needed=(hits + misses).sum(axis=1),
        hits=hits.sum(axis=1),
        loads=misses.sum(axis=1),
        cpu=np.zeros(len(steps), np.int64),
        stall_s=stall_s,
        link_busy_s=copied_s,
        layer_needed=(hits + misses).sum(axis=0),
        layer_hits=hits.sum(axis=0),
    )


def _copied_s(step: RunStep) -> float:
    timed = step.outcome.family_s
    return timed.get(_COPIES, 0.0) if timed else np.nan
