"""ExecutorOptions: how a model is executed; the parallel degrees stand beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.plan import Overlap

FLOATS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorOptions:
    """num_blocks: KV blocks of `block_size` tokens on each rank. seed: of the weights.

    dtype: of activations, cache and unquantised weights ("auto": the model's activation dtype). capture_sizes: decode
    batches that CUDA graphs are captured for, padded up to (empty: none). offload_cache_experts: experts a layer that
    stay on the device, all being in host memory (0: all are on the device). overlap: shared experts beside the routed
    ones (branch_stream) and nano-batches, a stream each (on a CPU one after the other). timed: seconds by operator
    family (not where a CUDA graph runs). record_routing: each step tells which experts its tokens chose (not from a
    CUDA graph).
    """

    num_blocks: int
    block_size: int = 16
    device: Literal["cpu", "cuda"] = "cpu"
    seed: int = 0
    dtype: str = "auto"
    capture_sizes: tuple[int, ...] = ()
    offload_cache_experts: int = 0
    overlap: Overlap = field(default_factory=Overlap)
    timed: bool = True
    record_routing: bool = False

    def __post_init__(self) -> None:
        if self.num_blocks < 1:
            raise InputError(self.num_blocks, "KV blocks must be at least 1")
        if self.block_size < 1:
            raise InputError(self.block_size, "block_size must be at least 1 token")
        if self.offload_cache_experts < 0:
            raise InputError(self.offload_cache_experts, "experts kept on the device must not be negative")
        if self.device not in ("cpu", "cuda"):
            raise InputError(self.device, "no such device", "cpu or cuda")
        if self.capture_sizes and self.device != "cuda":
            raise InputError(self.device, "has no CUDA graphs", "capture_sizes is for cuda")
        if len(self.overlap.nano_batches) > 1 and (self.offload_cache_experts or self.record_routing):
            what = "offloaded experts serve" if self.offload_cache_experts else "routing is recorded of"
            raise InputError("nano_batches", f"{what} one batch at a time", "--overlap none or shared-experts")
        if self.capture_sizes and self.record_routing:
            raise InputError("record_routing", "a CUDA graph does not tell its routing", "no capture_sizes")


def compute_dtype(arch: ModelArchitecture, asked: str) -> str:
    """The dtype of activations; asked "auto": the model's. Raises InputError for one that torch does not compute in."""
    dtype = arch.activation_dtype if asked == "auto" else asked
    if dtype not in FLOATS:
        raise InputError(dtype, "is no dtype of activations", f"one of {', '.join(FLOATS)}")
    return dtype
