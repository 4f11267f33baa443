"""What the scheduler does not know of a row's requests: their tokens and blocks, and so the batch of a step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.batch import Slot, StepBatch
from simtool.calibration.executor.block_tables import BlockTables
from simtool.calibration.executor.prompts import prompt_ids
from simtool.errors import SimtoolError
from simtool.simulator import state as st
from simtool.simulator.state import State
from simtool.workload import Workload


class Sequences:
    """Requests of one row: `known` tokens (prompt, then what was generated), and who is decoding."""

    def __init__(self, state: State, group: int, row: int, workload: Workload, vocab_size: int, seed: int) -> None:
        self.row = row
        self.blocks = BlockTables(state, group, row)
        self.workload = workload
        self.vocab_size = vocab_size
        self.seed = seed
        self.known: dict[int, NDArray[np.int64]] = {}
        self.length: dict[int, int] = {}
        self.decoding: set[int] = set()

    def batch(self, state: State, lane: int) -> StepBatch:
        """The step that was just scheduled in the lane, with token ids and blocks."""
        order = _running(state, self.row)
        self.decoding.intersection_update(order)
        mine = state.req_i[order, st.LANE] == lane if order else []
        decodes = [req for req, here in zip(order, mine, strict=True) if here and req in self.decoding]
        if state.lane_i[self.row, lane, st.STEP_DECODES] == 0:
            decodes = []
        if len(decodes) != state.lane_i[self.row, lane, st.STEP_DECODES]:
            raise SimtoolError(f"row {self.row}: the scheduler's decodes are not the requests that decode")
        chunks = state.chunks[self.row, lane, : state.lane_i[self.row, lane, st.CHUNKS]].tolist()
        for request, _, _ in chunks:
            self._know(request)
        steps = [(request, self.length[request] - 1) for request in decodes]
        self.blocks.follow(state, set(order), [(req, context) for req, _, context in chunks], steps)
        return StepBatch(
            decodes=tuple(self._slot(request, context, 1) for request, context in steps),
            prefills=tuple(self._slot(request, context, new) for request, new, context in chunks),
        )

    def ended(self, state: State, batch: StepBatch, tokens: NDArray[np.int64]) -> None:
        """The step's sampled tokens are known, and the scheduler has let go who is finished."""
        sampling = [slot.request for slot in (*batch.decodes, *batch.prefills) if slot.samples]
        for request, token in zip(sampling, tokens.tolist(), strict=True):
            self.known[request][self.length[request]] = token
            self.length[request] += 1
        running = set(_running(state, self.row))
        self.decoding.update(running.intersection(sampling))
        self.blocks.leave(state, running)

    def generated(self, request: int) -> NDArray[np.int32]:
        """The tokens that the request has been given so far."""
        start = int(self.workload.input_tokens[request])
        known = self.known.get(request, np.empty(0, np.int64))
        return known[start : self.length.get(request, 0)].astype(np.int32)

    def _know(self, request: int) -> None:
        if request in self.known:
            return
        prompt = prompt_ids(self.workload, request, self.vocab_size, self.seed)
        room = np.zeros(int(self.workload.output_tokens[request]), np.int64)
        self.known[request] = np.concatenate([prompt, room])
        self.length[request] = len(prompt)

    def _slot(self, request: int, context: int, new: int) -> Slot:
        end = context + new
        return Slot(
            request=request,
            tokens=self.known[request][context:end],
            context=context,
            blocks=self.blocks.table(request)[: -(-end // self.blocks.size)],
            samples=end == self.length[request],
        )


def _running(state: State, row: int) -> list[int]:
    """Running requests of a row in the order of their admission."""
    order: list[int] = []
    request = int(state.row_i[row, st.RUN_TAIL])
    while request != st.NONE:
        order.append(request)
        request = int(state.req_i[request, st.PREV_RUN])
    return order[::-1]
