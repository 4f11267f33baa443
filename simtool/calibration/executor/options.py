"""ExecutorOptions: how a model is executed; the parallel degrees stand beside it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.plan import ExpertOffload, Overlap
from simtool.step_schedule import StepSchedule

EXECUTED_OFFLOADS = ("none", "lru", "lfu")
FLOATS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorOptions:
    """num_blocks: KV blocks of `block_size` tokens on each rank. seed: of the weights.

    dtype: of activations, cache and unquantised weights ("auto": the model's activation dtype). capture_sizes: decode
    batches that CUDA graphs are captured for, padded up to (empty: none). offload: of routed
    experts, all of which are then in host memory. overlap: shared experts beside the routed
    ones (branch_stream) and nano-batches, a stream each (on a CPU one after the other). timed: seconds by operator
    family (not where a CUDA graph runs). record_routing: each step tells which experts its tokens chose (not from a
    CUDA graph). schedule: order and streams of the calls of nano-batches, in place of an overlap.
    """

    num_blocks: int
    block_size: int = 16
    device: Literal["cpu", "cuda"] = "cpu"
    seed: int = 0
    dtype: str = "auto"
    capture_sizes: tuple[int, ...] = ()
    offload: ExpertOffload = field(default_factory=ExpertOffload)
    overlap: Overlap = field(default_factory=Overlap)
    timed: bool = True
    record_routing: bool = False
    schedule: StepSchedule | None = None

    def __post_init__(self) -> None:
        if self.num_blocks < 1:
            raise InputError(self.num_blocks, "KV blocks must be at least 1")
        if self.block_size < 1:
            raise InputError(self.block_size, "block_size must be at least 1 token")
        if self.offload.policy not in EXECUTED_OFFLOADS:
            raise InputError(
                self.offload.policy, "is simulated, not executed", f"one of {', '.join(EXECUTED_OFFLOADS)}"
            )
        if not self.offload.off and self.offload.slots < 1:
            raise InputError(self.offload.slots, "slots of a layer must be at least 1 where experts are offloaded")
        if self.device not in ("cpu", "cuda"):
            raise InputError(self.device, "no such device", "cpu or cuda")
        if self.capture_sizes and self.device != "cuda":
            raise InputError(self.device, "has no CUDA graphs", "capture_sizes is for cuda")
        if len(self.overlap.nano_batches) > 1 and (not self.offload.off or self.record_routing):
            what = "routing is recorded of" if self.offload.off else "offloaded experts serve"
            raise InputError("nano_batches", f"{what} one batch at a time", "--overlap none or shared-experts")
        if self.schedule is not None:
            beside = {
                "capture_sizes": bool(self.capture_sizes),
                "offload": not self.offload.off,
                "record_routing": self.record_routing,
            }
            for name in (name for name, asked in beside.items() if asked):
                raise InputError(name, "does not go with a schedule, whose nano-batches run call by call")
            if not replace(self.overlap, min_tokens=0, min_prefill_tokens=0).off:
                raise InputError("schedule", "stands in place of the plan's overlap", "--overlap none")
        if self.capture_sizes and self.record_routing:
            raise InputError("record_routing", "a CUDA graph does not tell its routing", "no capture_sizes")


def compute_dtype(arch: ModelArchitecture, asked: str) -> str:
    """The dtype of activations; asked "auto": the model's. Raises InputError for one that torch does not compute in."""
    dtype = arch.activation_dtype if asked == "auto" else asked
    if dtype not in FLOATS:
        raise InputError(dtype, "is no dtype of activations", f"one of {', '.join(FLOATS)}")
    return dtype
