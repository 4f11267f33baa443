"""KV transfer: what a prefill step sends to the decode pool, of one device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simtool.models.lowering_kernels import collective
from simtool.models.lowering_shard import Shard
from simtool.models.memory import cache_window_tokens, mixer_kv_bytes, mixer_state_bytes
from simtool.models.operators import Array, Operator


def sent_kv_bytes(shard: Shard, requests: Array, new_tokens: Array) -> Array:
    """[b] bytes of the shard's layers for `requests` [b] chunks of `new_tokens` [b] each, of a device's own cache.

    A device sends what it holds: KV heads that are repeated over TP ranks, and latents, go from each. A sliding window
    keeps the last tokens of a chunk only; a recurrence sends its state (a chunk is taken as the last of its prompt).
    """
    total = np.zeros_like(requests)
    for mixer, _, count in shard.mixers:
        window = cache_window_tokens(mixer)
        tokens = np.minimum(new_tokens, window) if window else new_tokens
        per_token = mixer_kv_bytes(shard.arch, mixer, shard.parallel, shard.kv_dtype)
        total += count * requests * (tokens * per_token + mixer_state_bytes(shard.arch, mixer, shard.parallel))
    return total


def kv_transfer_operator(shard: Shard, sent_bytes: Array, nodes: int) -> Operator:
    """A message of `sent_bytes` [b] to one device of the decode pool: in the same node (nodes 1) or in another one (2).

    The receiver writes into its own memory, so only reading is counted. Between nodes all devices that the replica has
    in a node send at once and share its NICs.
    """
    devices = shard.parallel.devices
    senders = min(devices, shard.devices_per_node or devices) if nodes > 1 else 1
    operator = collective(
        "kv_transfer",
        "send_recv",
        count=1,
        message_bytes=sent_bytes,
        ranks=2 * senders,
        nodes=nodes,
        dtype=shard.kv_dtype,
    )
    return replace(operator, hbm_bytes=sent_bytes)
