"""A walk as OffloadUse: what its steps did, in the columns of a serving run."""

from __future__ import annotations

from simtool.offload_use import OffloadUse
from simtool.simulator.offload.walk import COUNTS, Walk


def walk_use(walked: Walk) -> OffloadUse:
    """The steps of a walk from time 0, one after the other."""
    needed, hits, cpu, loads = (COUNTS.index(name) for name in ("needed", "hits", "cpu", "loads"))
    steps, layers = walked.step_counts, walked.layer_counts
    return OffloadUse(
        start_s=walked.end_s - walked.step_s(),
        end_s=walked.end_s,
        needed=steps[:, needed],
        hits=steps[:, hits],
        loads=steps[:, loads],
        cpu=steps[:, cpu],
        stall_s=walked.stall_s,
        link_busy_s=walked.link_busy_s,
        layer_needed=layers[:, needed],
        layer_hits=layers[:, hits],
    )
