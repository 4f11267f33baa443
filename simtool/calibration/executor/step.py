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
    """

    inputs: StepInputs
    timer: FamilyTimer
    routes: list[torch.Tensor] | None = None
