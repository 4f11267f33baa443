"""Overlap: what of a step runs at once, as data. Stock policies are values, not code paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """A collective in chunks, each as soon as its data are there (Flux, FlashOverlap, T3, Comet, Tutel).

    collective: the operator, e.g. "attention_all_reduce", "mlp_all_reduce", "moe_dispatch", "moe_combine".
    producer: the kernel before it sends each chunk when it is computed. consumer: the kernel after it starts with the
    first chunk that arrived; local_first is its share of work that needs nobody else's data and goes first.
    local_last: the producer's share of work that nobody else needs and goes last (T3's own chunk).
    waves: how many waves of the producer's tiles each chunk has, in order (FlashOverlap), on the multiprocessors that
    the collective leaves; () makes `chunks` equal ones.
    separate: "kernels" are cut into kernels and messages of their own, which read weights again; "messages" come from
    one kernel that signals; "" sends from inside the kernel, where only the first chunk pays a latency.
    """

    collective: str
    chunks: int
    producer: bool = True
    consumer: bool = False
    local_first: float = 0.0
    local_last: float = 0.0
    waves: tuple[int, ...] = ()
    separate: Literal["", "messages", "kernels"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What of a step runs at once. The default runs one kernel after the other.

    nano_batches: shares of the batch that run as batches of their own, interleaved (NanoFlow; two-batch overlap, vLLM
    `--enable-dbo`); () keeps the batch whole. attention_stream, network_stream, branch_stream: decode attention,
    collectives, shared experts each get a stream beside the main one. fusions: collectives in chunks. comm_sms:
    multiprocessors that a collective keeps while it runs beside others. full_comm_sms: how many it needs for its full
    speed; with fewer it is slower in proportion (0: any number will do). fixed_sms: a kernel cut into
    chunks never has them, for its thread blocks are placed at launch (Comet); else it has them when nothing is sent.
    compute_first: the memory serves collectives
    last (T3). reduces_in_memory: sums are made where the data lie (T3), which saves a kernel's `sum_share`.
    min_tokens: steps with fewer tokens a rank run without all this (vLLM `--dbo-decode-token-threshold`).
    """

    nano_batches: tuple[float, ...] = ()
    attention_stream: bool = False
    network_stream: bool = False
    branch_stream: bool = False
    fusions: tuple[Fusion, ...] = ()
    comm_sms: int = 0
    full_comm_sms: float = 0.0
    fixed_sms: bool = False
    compute_first: bool = False
    reduces_in_memory: bool = False
    min_tokens: int = 0

    @property
    def off(self) -> bool:
        """Whether everything runs one after the other."""
        return len(self.nano_batches) < 2 and not (
            self.attention_stream or self.network_stream or self.branch_stream or self.fusions
        )
