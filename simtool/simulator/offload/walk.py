"""Walk a store over the needs of many steps: hits, stalls, link use and time, exact for the order of its decisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.simulator.offload import arrays as col
from simtool.simulator.offload.arrays import F8, I8, Arrays
from simtool.simulator.offload.building import Bools, make_arrays
from simtool.simulator.offload.handle import handle
from simtool.simulator.offload.loop import advance_store
from simtool.simulator.offload.needs import Needs
from simtool.simulator.offload.policy import OffloadPolicy
from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.store import OffloadStore

COUNTS = ("needed", "hits", "late", "misses", "cpu", "prefetches", "useful", "loads", "reads", "light")
STALLS = ("miss", "late", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfers:
    """Every load to HBM, in the order of its issue.

    item, visit: int64[k] the object, and during which visit (step * layers + layer) it was issued. urgency: 0 demand,
    1 prefetch. wait: place in the visit's order of computing after which its room was free (-1: at once). issue_s,
    arrive_s: float64[k] (NaN: cancelled, or on its way at the end).
    """

    item: I8
    visit: I8
    urgency: I8
    wait: I8
    issue_s: F8
    arrive_s: F8


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What happened. Counts are of objects, int64[layers, 10] and int64[steps, 10], columns as COUNTS.

    hits: in HBM or on the way when needed; late: of these, still on the way; misses: loaded on demand, or computed on
    the CPU (cpu). prefetches: loads begun before the need; useful: of these, needed before they left. loads: to HBM;
    reads: from the SSD; light: needs that a light copy serves. end_s: float64[steps]. stall_s, layer_stall_s:
    float64[steps, 3] and [layers, 3], waiting for misses, for late prefetches, for the CPU beyond the device.
    compute_s: float64[steps] on the device; link_busy_s, ssd_busy_s: float64[steps].
    resident: bool[n] in HBM at the end.
    """

    layer_counts: I8
    step_counts: I8
    end_s: F8
    stall_s: F8
    layer_stall_s: F8
    compute_s: F8
    link_busy_s: F8
    ssd_busy_s: F8
    resident: NDArray[np.bool_]
    transfers: Transfers

    def total(self, name: str) -> int:
        """Sum of one of COUNTS."""
        return int(self.step_counts[:, COUNTS.index(name)].sum())

    @property
    def makespan_s(self) -> float:
        """End of the last step."""
        return float(self.end_s[-1]) if len(self.end_s) else 0.0

    @property
    def hit_rate(self) -> float:
        """Share of needed objects that were there; NaN where nothing was needed."""
        needed = self.total("needed")
        return self.total("hits") / needed if needed else float("nan")

    def hit_rates(self, *, by: str = "layer") -> F8:
        """[layers] or (by="step") [steps]; NaN where nothing was needed."""
        counts = self.layer_counts if by == "layer" else self.step_counts
        with np.errstate(invalid="ignore"):
            return np.asarray(counts[:, COUNTS.index("hits")] / counts[:, COUNTS.index("needed")])

    def step_s(self) -> F8:
        """float64[steps]: seconds of each."""
        return np.diff(self.end_s, prepend=0.0)


def walk(
    store: OffloadStore,
    policy: OffloadPolicy,
    needs: Needs,
    prices: Prices,
    *,
    guess: Needs | None = None,
    resident: Bools | None = None,
    in_host: Bools | None = None,
    records: int = 0,
) -> Walk:
    """Walk all steps from time 0. Arguments and errors as `make_arrays`."""
    a = make_arrays(store, policy, needs, prices, guess=guess, resident=resident, in_host=in_host, records=records)
    advance_store(handle(a), 0, needs.steps, 0.0)
    return read(a)


def read(a: Arrays) -> Walk:
    """The columns of a walk."""
    stalls = [col.WAIT_MISS, col.WAIT_LATE, col.WAIT_CPU]
    logged = min(int(a.counters[col.LOGGED]), len(a.log_i))
    log_i, log_f = a.log_i[:logged], a.log_f[:logged]
    return Walk(
        layer_counts=a.layer_count,
        step_counts=a.step_count,
        end_s=a.step_out[:, col.END],
        stall_s=a.step_out[:, stalls],
        layer_stall_s=a.layer_s[:, stalls],
        compute_s=a.step_out[:, col.COMPUTE],
        link_busy_s=a.step_out[:, col.LINK_BUSY],
        ssd_busy_s=a.step_out[:, col.SSD_BUSY],
        resident=(a.object_i[:, col.POOL] != col.NONE) & (a.object_i[:, col.PHASE] == col.IDLE),
        transfers=Transfers(
            item=log_i[:, col.LOG_OBJECT],
            visit=log_i[:, col.LOG_VISIT],
            urgency=log_i[:, col.LOG_URGENCY],
            wait=log_i[:, col.LOG_WAIT],
            issue_s=log_f[:, 0],
            arrive_s=log_f[:, 1],
        ),
    )
