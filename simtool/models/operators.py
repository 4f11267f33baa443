"""Operator: one kernel's work, over a column of batches at once.

All arrays have shape [b]: entry i is the operator's work in step i of the batch column. Batching, sharding and
quantisation change these numbers, never the code that prices them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Family = Literal[
    "gemm",  # dims: m, n, k
    "moe",  # dims: tokens (all ranks of the EP group), hidden, inter, top_k, num_experts, moe_tp, moe_ep; where tokens
    # are sent to their experts also received: the share of them that reaches a device
    "attention_prefill",  # dims: batch, seq (new tokens a request), prefix, heads, kv_heads, head_dim, window
    "attention_decode",  # dims: batch, kv_len (mean), heads, kv_heads, head_dim, window
    "mla_prefill",  # dims: batch, seq, prefix, heads
    "mla_decode",  # dims: batch, kv_len, heads
    "recurrent",  # dims: tokens, sequences
    "elementwise",  # dims: tokens, kind (an index into ELEMENTWISE_KINDS)
    "embedding",  # dims: tokens
    "sampling",  # dims: tokens
    "collective",  # dims: bytes (a rank's message, as nccl-tests counts it), ranks, nodes; kind in `collective`;
    # dispatch and combine: bytes that a rank sends inside its node, across: to other nodes, low_latency (0 or 1)
]
ELEMENTWISE_KINDS = ("other", "norm", "rope", "activation")  # kernels that take unlike times for the same bytes
Collective = Literal["", "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv", "dispatch", "combine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """A column of steps as one data-parallel rank sees them. Arrays of shape [b].

    prefill_tokens: new prompt tokens of all chunks; prefill_requests: chunks; prefill_context: mean cached tokens
    before a chunk. decode_requests, decode_kv_tokens: requests with one new token and the sum of their KV lengths.
    total_tokens: tokens of all data-parallel ranks (what the experts see). sampled: requests that sample a token.
    """

    prefill_tokens: Array
    prefill_requests: Array
    prefill_context: Array
    decode_requests: Array
    decode_kv_tokens: Array
    total_tokens: Array
    sampled: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One kernel on one device. flops, hbm_bytes, link_bytes: shape [b], for a single call of the `count` calls a step.

    dtype: the compute precision ("bf16", "fp8", "mxfp4", …: weights' for gemm and moe, KV's for attention).
    """

    name: str
    family: Family
    count: int
    dtype: str
    dims: Mapping[str, Array]
    flops: Array
    hbm_bytes: Array
    link_bytes: Array = field(default_factory=lambda: np.zeros(1))
    launches: int = 1
    collective: Collective = ""
