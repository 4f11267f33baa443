"""OffloadClock: steps of offloaded replicas take what their stores say, the others' what their tables say."""

from __future__ import annotations

from collections.abc import Sequence

from simtool.offload_use import OffloadUse
from simtool.simulator import state as st
from simtool.simulator.engine import EngineSpec
from simtool.simulator.offload.served import ServedStore, joined_use
from simtool.simulator.state import State


class OffloadClock:
    """A StepClock (simtool/simulator/stepped.py): one store a replica whose experts are offloaded."""

    def __init__(self, engines: Sequence[EngineSpec]) -> None:
        self._stores = [_store(engine) for engine in engines]
        self._seconds: dict[tuple[int, int], float] = {}

    def begin(self, state: State, group: int, lane: int) -> float:
        """Take the scheduled step through the replica's store."""
        flight, store = state.flight_f[group, lane], self._stores[group]
        start_s = float(flight[st.LEAP_START])
        seconds = float(flight[st.LEAP_END]) - start_s
        if store is not None:
            row, rest_s = int(state.group_i[group, st.ROW0]), _rest_s(state, group, lane)
            dense_s = max(0.0, seconds - rest_s - _least_s(state, group, lane))
            seconds = store.step(state, row, lane, start_s, dense_s, rest_s)
        self._seconds[group, lane] = seconds
        return float(state.stage_free[group, 0]) - start_s if state.config[group, st.LANES] > 1 else 0.0

    def end(self, group: int, lane: int) -> float:
        """Seconds of the lane's step."""
        return self._seconds[group, lane]

    def ended(self, state: State, group: int, lane: int) -> None:
        """Nothing is left to do."""

    def use(self) -> OffloadUse | None:
        """What all stores did."""
        return joined_use([store.use() for store in self._stores if store is not None])


def _store(engine: EngineSpec) -> ServedStore | None:
    if engine.offload is None or engine.tables.experts is None:
        return None
    return ServedStore(engine.offload, engine.tables.experts)


def _least_s(state: State, group: int, lane: int) -> float:
    """What the tables count for the experts of the step: the least that they can take."""
    table, tokens = state.group_i[group, st.TABLE], state.flight_i[group, lane, st.STEP_TOKENS]
    return float(state.shared_s[table, 0, min(tokens, state.shared_s.shape[2] - 1)])


def _rest_s(state: State, group: int, lane: int) -> float:
    """LM head and sampling, and the host's part where nothing hides it."""
    table, lane_i = state.group_i[group, st.TABLE], state.lane_i[state.group_i[group, st.ROW0], lane]
    rest_s = float(state.head_s[table, lane_i[st.STEP_SAMPLED]])
    if state.config[group, st.HOST_HIDDEN] == 0:
        rest_s += float(state.host_s[table, lane_i[st.STEP_DECODES] + lane_i[st.CHUNKS]])
    return rest_s
