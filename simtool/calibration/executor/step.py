"""Step: what a layer needs to know of the step that it runs."""

from __future__ import annotations

from dataclasses import dataclass

from simtool.calibration.executor.inputs import StepInputs
from simtool.calibration.executor.timer import FamilyTimer


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Inputs, and the timer that each kernel call goes through."""

    inputs: StepInputs
    timer: FamilyTimer
