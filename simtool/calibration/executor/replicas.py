"""Replicas of one pool on one runner: the same weights, KV blocks and lanes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from simtool.calibration.executor.batch import Slot, StepBatch, StepOutcome

if TYPE_CHECKING:
    from simtool.calibration.executor.runner import Runner


def replicas_on(runner: Runner, replicas: int, *, num_blocks: int, lanes: int) -> list[Runner]:
    """A runner for each replica. num_blocks: KV blocks of one, lanes: of one; `runner` has as many times more."""
    if replicas == 1:
        return [runner]
    return [ReplicaRunner(runner, index * num_blocks, index * lanes) for index in range(replicas)]


class ReplicaRunner:
    """The part of a runner that belongs to one replica. Steps of different replicas run one after another."""

    def __init__(self, inner: Runner, first_block: int, first_lane: int) -> None:
        self._inner = inner
        self._first_block = first_block
        self._first_lane = first_lane

    def submit(self, lane: int, batches: Sequence[StepBatch]) -> None:
        """As Runner says."""
        self._inner.submit(self._first_lane + lane, [self._moved(batch) for batch in batches])

    def collect(self, lane: int) -> StepOutcome:
        """As Runner says."""
        return self._inner.collect(self._first_lane + lane)

    def forget_experts(self) -> None:
        """As Runner says."""
        self._inner.forget_experts()

    def close(self) -> None:
        """The other replicas may go on: who started the runner ends it."""

    def _moved(self, batch: StepBatch) -> StepBatch:
        return StepBatch(decodes=self._slots(batch.decodes), prefills=self._slots(batch.prefills))

    def _slots(self, slots: Sequence[Slot]) -> tuple[Slot, ...]:
        return tuple(replace(slot, blocks=slot.blocks + self._first_block) for slot in slots)
