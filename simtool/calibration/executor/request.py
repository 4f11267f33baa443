"""ExecuteRequest: how to run a plan, beside what the plan itself says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simtool.errors import InputError
from simtool.step_schedule import StepSchedule

_MOST_SEED = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteRequest:
    """device "": the GPU where torch sees one. layers: of the model (0: all). seed: of weights and prompts.

    dtype: of activations, cache and unquantised weights ("auto": the model's). record_routing: keep which experts each
    token chose. schedule: in which order and on which streams a step's nano-batches run.
    """

    device: Literal["", "cpu", "cuda"] = ""
    layers: int = 0
    seed: int = 0
    dtype: str = "auto"
    record_routing: bool = False
    schedule: StepSchedule | None = None

    def __post_init__(self) -> None:
        if self.device not in ("", "cpu", "cuda"):
            raise InputError(self.device, "is no device to run on", "cpu or cuda")
        if self.layers < 0:
            raise InputError(self.layers, "layers must be at least 1", "leave it out for the whole model")
        if not 0 <= self.seed < _MOST_SEED:
            raise InputError(self.seed, "is no seed", "a whole number from 0 below 2^31")
        if self.dtype not in ("auto", "fp32", "fp16", "bf16"):
            raise InputError(self.dtype, "is no dtype of activations", "auto, fp32, fp16 or bf16")
