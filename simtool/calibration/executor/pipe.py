"""StagePipe: one rank's part of a step, with hidden states received from the stage before and sent to the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from simtool.calibration.executor.batch import StepBatch
from simtool.calibration.executor.decoder import Hidden
from simtool.calibration.executor.inputs import StepInputs
from simtool.calibration.executor.ranks import rank_of
from simtool.calibration.executor.worker import RankWorker


class StagePipe:
    """Runs steps in the order in which they are submitted. meets: ranks exchange tokens even if theirs are none."""

    def __init__(self, worker: RankWorker, hidden_size: int, *, meets: bool) -> None:
        self._worker = worker
        self._hidden_size = hidden_size
        self._meets = meets
        self._sent: deque[tuple[Any, torch.Tensor]] = deque()

    def inputs(self, batches: Sequence[StepBatch]) -> StepInputs | None:
        """What `run` needs; None where this rank has nothing to do."""
        own = batches[self._worker.ranks.place.dp_rank].tokens
        busy = own or (self._meets and any(batch.tokens for batch in batches))
        return self._worker.inputs(batches) if busy else None

    def run(self, inputs: StepInputs | None) -> torch.Tensor | None:
        """Tokens that were sampled, int64[samples]; None before the last stage."""
        ranks = self._worker.ranks
        if inputs is None:
            return torch.zeros(0, dtype=torch.int64) if ranks.last else None
        hidden = self._worker.run(inputs, None if ranks.first else self._received(inputs.tokens))
        if ranks.last:
            return self._worker.sample(inputs, hidden)
        self._send(hidden)
        return None

    def drain(self) -> None:
        """Wait until all that was sent has left."""
        while self._sent:
            self._sent.popleft()[0].wait()

    @property
    def _cut(self) -> int:
        """Ranks of the tensor-parallel group that share the message (1 where the width cannot be cut)."""
        tp = self._worker.ranks.parallel.tp
        return tp if self._hidden_size % tp == 0 else 1

    def _send(self, hidden: Hidden) -> None:
        assert hidden.residual is not None
        both = torch.stack((hidden.states, hidden.residual))
        place, width = self._worker.ranks.place, self._hidden_size // self._cut
        first = place.tp_rank * width if self._cut > 1 else 0
        part = both[:, :, first : first + width].contiguous()
        while self._sent and self._sent[0][0].is_completed():
            self._sent.popleft()
        if part.numel():
            self._sent.append((torch.distributed.isend(part, dst=self._peer(1)), part))

    def _received(self, tokens: int) -> Hidden:
        decoder, width = self._worker.decoder, self._hidden_size // self._cut
        part = torch.empty(2, tokens, width, dtype=decoder.dtype, device=decoder.layout.device)
        if part.numel():
            self._worker.timer.run("collective", torch.distributed.recv, part, src=self._peer(-1))
        if self._cut > 1:
            whole = self._worker.timer.run("collective", self._worker.ranks.tensor.all_gather, part)
            part = whole.view(self._cut, 2, tokens, width).permute(1, 2, 0, 3).reshape(2, tokens, self._hidden_size)
        return Hidden(states=part[0], residual=part[1])

    def _peer(self, step: int) -> int:
        ranks = self._worker.ranks
        return rank_of(ranks.place.stage + step, ranks.place.dp_rank, ranks.place.tp_rank, ranks.parallel)
