"""Points: what a profiling run writes down as it measures, one value a row of the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from simtool.calibration.measured_set import Contention, HostTime

COPY_KINDS = ("h2d_pinned", "h2d_pageable", "d2h_pinned", "d2h_pageable", "hbm")
COLLECTIVE_KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
_GQA = ("heads", "kv_heads", "head_dim", "window")
# The dims of each family, as simtool.models.operators names them; bytes where a kernel only moves memory.
POINT_DIMS: Mapping[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k"),
    "moe": ("tokens", "hidden", "inter", "top_k", "num_experts", "moe_tp", "moe_ep", "matrices"),
    "attention_prefill": ("batch", "seq", "prefix", *_GQA),
    "attention_decode": ("batch", "kv_len", *_GQA),
    "mla_prefill": ("batch", "seq", "prefix", "heads"),
    "mla_decode": ("batch", "kv_len", "heads"),
    "elementwise": ("bytes", "kind"),
    "embedding": ("bytes",),
    "sampling": ("bytes",),
}
# The longest cache of a decode batch of unlike lengths (kv_len is their mean); absent where all are equal.
OPTIONAL_DIMS: Mapping[str, tuple[str, ...]] = {"attention_decode": ("kv_max",), "mla_decode": ("kv_max",)}
MAY_BE_ZERO = frozenset({"prefix", "window", "kind"})


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPoint:
    """A kernel call to be timed. kernel: what runs, and after a colon how the call is varied ("mm", "loop:zipf").

    detail: what the call needs beyond the dims that the cost model knows (a width, a vocabulary); not journalled.
    """

    family: str
    dtype: str
    kernel: str
    dims: Mapping[str, float]
    detail: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, tuple[tuple[str, float], ...]]:
        """Equal for two points that the journal cannot tell apart."""
        return self.family, self.dtype, self.kernel, tuple(sorted((k, float(v)) for k, v in self.dims.items()))

    @property
    def name(self) -> str:
        """The key as text."""
        return f"{self.family} {self.dtype} {self.kernel} " + " ".join(f"{k}={v:g}" for k, v in self.key[3])


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Median of `repeats` calls in seconds; spread: their relative interquartile range."""

    seconds: float
    spread: float
    repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedPoint:
    """A kernel call as measured."""

    point: KernelPoint
    timing: Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedCopy:
    """A copy of `size_bytes` (counted once, although a copy within a memory reads and writes). name: COPY_KINDS."""

    name: str
    size_bytes: float
    timing: Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedCollective:
    """A collective of `ranks` processes; size_bytes as nccl-tests counts a rank's message."""

    name: str
    library: str
    ranks: int
    size_bytes: float
    timing: Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinel:
    """The same GEMM again and again: it shows how the clock drifts."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What could not be measured, and why. subject: a family and dtype, an extra's name, or one point's name."""

    subject: str
    reason: str


Row = TimedPoint | TimedCopy | TimedCollective | Contention | HostTime | Sentinel | Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """A row and when it was written, in seconds of measuring since the journal began (a resumed run goes on)."""

    at_s: float
    row: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHeader:
    """The first line. device: a catalogue name or another; request: what was asked for, as a flat mapping of text.

    machine: facts of the run (date, driver, clocks, threads, …), kept as they were when the journal began.
    """

    device: str
    library: str
    version: str
    seed: int
    request: Mapping[str, str]
    machine: Mapping[str, str | float]
