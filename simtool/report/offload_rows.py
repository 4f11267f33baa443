"""Walks of offload policies as rows of text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simtool.offloading import PolicyWalk
from simtool.offloads import offload_text
from simtool.report.wording import number
from simtool.units import GB

OFFLOAD_HEADS = (
    "policy", "slots", "weights GB", "tok/s", "hits", "reuse ≤", "loads/tok", "missed", "late", "CPU", "link",
)  # fmt: skip
OFFLOAD_CAVEAT = (
    "weights GB: in HBM, with the slots' experts; a star where that does not fit the device\n"
    "hits: in HBM or on the way when needed; reuse ≤: share of needs without a load that no policy exceeds (Belady)\n"
    "missed, late, CPU: share of the time that waits for them; link: that it is busy; decode only, from an empty cache"
)


def offload_rows(found: Sequence[PolicyWalk]) -> list[list[str]]:
    """A row a walk under OFFLOAD_HEADS."""
    rows = []
    for one in found:
        use = one.use
        waits = [100 * float(seconds) / use.busy_s for seconds in use.stall_s.sum(axis=0)]
        rows.append(
            [
                offload_text(replace(one.offload, slots=0)),
                str(one.offload.slots),
                f"{one.weights_bytes / GB:.1f}" + ("" if one.fits else " *"),
                number(one.tokens_per_s),
                f"{100 * use.hit_rate:.1f}%",
                f"{100 * one.most_hits:.1f}%",
                number(one.loads_per_token),
                *(f"{share:.1f}%" for share in waits),
                f"{100 * use.link_share:.1f}%",
            ]
        )
    return rows
