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
    separate: "kernels" are cut into kernels and messages of their own, which read weights again; "messages" come from
    one kernel that signals; "" sends from inside the kernel, where only the first chunk pays a latency.
    """

    collective: str
    chunks: int
    producer: bool = True
    consumer: bool = False
    local_first: float = 0.0
    separate: Literal["", "messages", "kernels"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What of a step runs at once. The default runs one kernel after the other.

    nano_batches: shares of the batch that run as batches of their own, interleaved (NanoFlow; two-batch overlap, vLLM
    `--enable-dbo`); () keeps the batch whole. attention_stream, network_stream, branch_stream: decode attention,
    collectives, shared experts each get a stream beside the main one. fusions: collectives in chunks. comm_sms:
    multiprocessors that a collective keeps while it runs beside others. compute_first: the memory serves collectives
    last (T3). reduces_in_memory: sums are made where the data lie (T3), which saves reading them.
    min_tokens: steps with fewer tokens a rank run without all this (vLLM `--dbo-decode-token-threshold`).
    """

    nano_batches: tuple[float, ...] = ()
    attention_stream: bool = False
    network_stream: bool = False
    branch_stream: bool = False
    fusions: tuple[Fusion, ...] = ()
    comm_sms: int = 0
    compute_first: bool = False
    reduces_in_memory: bool = False
    min_tokens: int = 0

    @property
    def off(self) -> bool:
        """Whether everything runs one after the other."""
        return len(self.nano_batches) < 2 and not (
            self.attention_stream or self.network_stream or self.branch_stream or self.fusions
        )
