"""Step: what a layer needs to know of the step that it runs, and where it leaves its routing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from simtool.calibration.executor.inputs import StepInputs
from simtool.calibration.executor.timer import FamilyTimer


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Inputs, and the timer that each kernel call goes through.

    routes: where each mixture puts the experts it chose, int64[tokens, top_k], in order of layers (None: nobody asks).
    streams: calls of a layer may run on several streams of a GPU.
    """

    inputs: StepInputs
    timer: FamilyTimer
    routes: list[torch.Tensor] | None = None
    streams: bool = False

    def crossed(self, *tensors: torch.Tensor | None) -> None:
        """A call begins that reads these, which an earlier call has made, perhaps on another stream."""
        if self.streams:
            for tensor in tensors:
                if tensor is not None:
                    tensor.record_stream(torch.cuda.current_stream())
