"""Runner: what runs a step's batches on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from simtool.calibration.executor.batch import StepBatch, StepOutcome


class Runner(Protocol):
    """One replica. With several pipeline stages, as many lanes may be in flight; each is collected in its turn."""

    def submit(self, lane: int, batches: Sequence[StepBatch]) -> None:
        """Start a step: one batch a data-parallel rank, empty for ranks without work."""

    def collect(self, lane: int) -> StepOutcome:
        """Wait for the lane's step."""

    def close(self) -> None:
        """End the runner's processes and free its memory."""
