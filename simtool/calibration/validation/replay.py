"""Replay: the simulator's scheduler on the recorded step times, with what the tables say of each step it composes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simtool.metrics import Result
from simtool.simulator import state as st
from simtool.simulator.engine import EngineSpec
from simtool.simulator.offload.clock import OffloadClock
from simtool.simulator.routing import ROUTERS
from simtool.simulator.run import FIRST_RECORDS, result_of
from simtool.simulator.setup import build_state
from simtool.simulator.state import State
from simtool.simulator.stepped import SteppedCluster
from simtool.workload import Workload

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
COMPOSITION = ("replica", "prefill_tokens", "decode_requests", "kv_blocks", "waiting", "running")
_SAME_S = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step computes: the fullest rank's tokens, decodes, their mean KV length and its chunks (new, context).

    all_tokens, sampled: of all ranks. requests: of the fullest rank.
    """

    tokens: int
    decodes: int
    kv_tokens: float
    chunks: tuple[tuple[int, int], ...]
    all_tokens: int
    sampled: int
    requests: int


class RecordedClock:
    """Each step of a replica ends when the record says; a step that the record lacks takes what it is priced at."""

    def __init__(self, steps: dict[str, F8], engines: Sequence[EngineSpec]) -> None:
        self.prices = OffloadClock(engines)
        self.starts: dict[int, list[float]] = {}
        self.ends: dict[int, list[float]] = {}
        for group in np.unique(steps["replica"].astype(np.int64)).tolist():
            mine = steps["replica"] == group
            self.starts[group], self.ends[group] = steps["start_s"][mine].tolist(), steps["end_s"][mine].tolist()
        self.batches: dict[int, list[Batch]] = {group: [] for group in self.ends}
        self.priced_s: dict[int, list[float]] = {group: [] for group in self.ends}
        self.flying: dict[tuple[int, int], float] = {}

    def begin(self, state: State, group: int, lane: int) -> float:
        """Note the batch and its price; another lane may start when it did in the record."""
        start_s = float(state.flight_f[group, lane, st.LEAP_START])
        self.prices.begin(state, group, lane)
        priced_s = self.prices.end(group, lane)
        number = len(self.priced_s.setdefault(group, []))
        self.priced_s[group].append(priced_s)
        self.batches.setdefault(group, []).append(batch_of(state, group, lane))
        starts, ends = self.starts.get(group, []), self.ends.get(group, [])
        took_s = max(0.0, ends[number] - start_s) if number < len(ends) else priced_s
        self.flying[group, lane] = took_s
        if number + 1 < len(starts) and starts[number + 1] < ends[number] - _SAME_S:
            return starts[number + 1] - starts[number]
        return 0.0

    def end(self, group: int, lane: int) -> float:
        """Seconds from the step's start in the replay to its end in the record."""
        return self.flying.pop((group, lane))

    def ended(self, state: State, group: int, lane: int) -> None:
        """Nothing is left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The replayed run. priced_s [k] and batches: of its steps in order of their start, replica by replica as recorded.

    divergence: "" or where the replayed schedule first differs from the recorded one.
    """

    result: Result
    priced_s: F8
    batches: tuple[Batch, ...]
    divergence: str


def replay(engines: Sequence[EngineSpec], workload: Workload, router: str, recorded: dict[str, F8]) -> Replay:
    """Schedule `workload` again, each step lasting as long as it was recorded."""
    state = build_state(engines, workload, exact_steps=True, reserve_full=1, record_capacity=FIRST_RECORDS)
    clock = RecordedClock(recorded, engines)
    cluster = SteppedCluster(state, workload, ROUTERS[router], clock)
    cluster.run()
    result = replace(result_of(cluster, engines, workload), offload=clock.prices.use())
    return Replay(
        result=result,
        priced_s=_in_order(recorded, clock.priced_s),
        batches=_batches_in_order(recorded, clock.batches),
        divergence=divergence(recorded, result.steps),
    )


def divergence(recorded: dict[str, F8], replayed: dict[str, F8]) -> str:
    """The first step whose composition is not the recorded one, in words; "" where all are the same."""
    for group in np.unique(recorded["replica"]).tolist():
        mine, other = recorded["replica"] == group, replayed["replica"] == group
        for name in COMPOSITION[1:]:
            was, now = recorded[name][mine], replayed[name][other]
            shared = min(len(was), len(now))
            bad = np.flatnonzero(was[:shared] != now[:shared])
            if len(bad):
                step = int(bad[0])
                told = f"recorded {name} = {was[step]:g}, simulated {now[step]:g}"
                return f"step {step} of replica {int(group)}: {told}"
        if np.count_nonzero(mine) != np.count_nonzero(other):
            told = f"{np.count_nonzero(mine):,} steps recorded, {np.count_nonzero(other):,} simulated"
            return f"replica {int(group)}: {told}"
    return ""


def batch_of(state: State, group: int, lane: int) -> Batch:
    """The step that has just been scheduled in a lane."""
    row0, rows = int(state.group_i[group, st.ROW0]), int(state.group_i[group, st.ROWS])
    lanes = state.lane_i[row0 : row0 + rows, lane]
    tokens = lanes[:, st.STEP_DECODES] + lanes[:, st.STEP_PREFILL]
    full = int(np.argmax(tokens))
    own = lanes[full]
    chunks = state.chunks[row0 + full, lane, : int(own[st.CHUNKS])]
    decodes = int(own[st.STEP_DECODES])
    return Batch(
        tokens=int(tokens[full]),
        decodes=decodes,
        kv_tokens=float(own[st.KV_SUM]) / max(int(own[st.DECODES]), 1) + 1.0,
        chunks=tuple((int(new), int(cached)) for _, new, cached in chunks.tolist()),
        all_tokens=int(tokens.sum()),
        sampled=int(lanes[:, st.STEP_SAMPLED].sum()),
        requests=int((lanes[:, st.STEP_DECODES] + lanes[:, st.CHUNKS]).max()),
    )


def _in_order(recorded: dict[str, F8], by_group: dict[int, list[float]]) -> F8:
    """[k] in the order of the record; NaN where the replay has no such step."""
    found = np.full(len(recorded["start_s"]), np.nan)
    for group, values in by_group.items():
        rows = np.flatnonzero(recorded["replica"] == group)[: len(values)]
        found[rows] = values[: len(rows)]
    return found


def _batches_in_order(recorded: dict[str, F8], by_group: dict[int, list[Batch]]) -> tuple[Batch, ...]:
    """One a recorded step; an empty batch where the replay has no such step."""
    none = Batch(tokens=0, decodes=0, kv_tokens=1.0, chunks=(), all_tokens=0, sampled=0, requests=0)
    found = [none] * len(recorded["start_s"])
    for group, batches in by_group.items():
        rows = np.flatnonzero(recorded["replica"] == group).tolist()
        for row, batch in zip(rows, batches, strict=False):
            found[row] = batch
    return tuple(found)
