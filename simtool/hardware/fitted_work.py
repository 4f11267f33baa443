"""Operator dims -> work and features: what the fitted laws and residuals of a family are functions of.

Calibration and pricing both come through here, so a law is always asked in the terms it was fitted in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.received_experts import nearest_mixture, octaves_beyond
from simtool.hardware.roofline import Work
from simtool.models.operators import ELEMENTWISE_KINDS

Array = NDArray[np.float64]
Dims = Mapping[str, Array]

# Bytes a stored weight or KV element, block scales included: fp8_block one fp32 scale a 128x128 tile, mxfp4 one byte
# per 32 (OCP MX specification), nvfp4 one byte per 16, int4 (AWQ/GPTQ) one fp16 scale and zero per 128.
STORED_BYTES: Mapping[str, float] = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1.0,
    "int8": 1.0,
    "int8_wo": 1.0,
    "fp4": 0.5625,
    "nvfp4": 0.5625,
    "mxfp4": 0.53125,
    "int4": 0.53125,
}
QUANTISES_ACTIVATIONS = frozenset({"fp8", "fp8_block", "int8", "fp4", "nvfp4"})
ACTIVATION_BYTES = 2.0  # bf16/fp16 activations between kernels, on every engine we import


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyTerms:
    """work: dims and stored dtype -> Work. features: dims -> log2 features [b, F]; names label the F columns.
    beyond: dims -> octaves between a shape and the one whose features stand for it, [b].

    Beside the dims stand products of them: what a cache holds, and waves of blocks over the cores, make a kernel jump
    where a product (bytes, FLOPs, output elements) has one value, a diagonal that no separable sum of the dims follows.
    """

    names: tuple[str, ...]
    work: Callable[[Dims, str], Work]
    features: Callable[[Dims], Array]
    beyond: Callable[[Dims], Array] = lambda _: np.zeros(1)


def _columns(*columns: Array) -> Array:
    """Stack log2 of positive columns, [b, F]. Zero work is priced 0 whatever its features, so the clip is harmless."""
    return np.stack(np.broadcast_arrays(*[np.log2(np.maximum(c, 1e-3)) for c in columns]), axis=-1)


def _windowed(dims: Dims) -> Array:
    """2 where the attention has a window, 1 elsewhere: a feature of its own, since windowed kernels differ."""
    return np.where(dims["window"] > 0, 2.0, 1.0)


def gemm_work(dims: Dims, dtype: str) -> Work:
    """[m, k] x [k, n]: reads both, writes m x n. A quantised activation is read, written and read again."""
    m, n, k = dims["m"], dims["n"], dims["k"]
    moved = ACTIVATION_BYTES * (m * k + m * n) + STORED_BYTES[dtype] * n * k
    serial = m * k * (ACTIVATION_BYTES + 1.0) if dtype in QUANTISES_ACTIVATIONS else 0.0 * m
    return Work(flops=2.0 * m * n * k, hbm_bytes=np.where(m > 0, moved, 0.0), serial_bytes=serial)


def visible_pairs(new: Array, prefix: Array, window: Array) -> Array:
    """(query, key) pairs of a causal chunk: sum over its `new` tokens of min(position, window). window 0: no limit."""

    def total(length: Array) -> Array:
        capped = np.where(window > 0, np.minimum(length, window), length)
        return capped * (capped + 1.0) / 2.0 + (length - capped) * capped

    return np.asarray(total(prefix + new) - total(prefix))


def prefill_work(dims: Dims, dtype: str) -> Work:
    """Causal attention of `batch` chunks of `seq` new tokens after `prefix` cached ones (FlashAttention traffic)."""
    batch, seq, heads, kv_heads = dims["batch"], dims["seq"], dims["heads"], dims["kv_heads"]
    pairs = visible_pairs(seq, dims["prefix"], dims["window"])
    reach = np.where(dims["window"] > 0, np.minimum(dims["prefix"], dims["window"]), dims["prefix"])
    new_bytes = ACTIVATION_BYTES * seq * 2.0 * (heads + kv_heads)
    cached_bytes = STORED_BYTES[dtype] * reach * 2.0 * kv_heads
    return Work(
        flops=4.0 * batch * heads * dims["head_dim"] * pairs,
        hbm_bytes=np.where(seq > 0, batch * dims["head_dim"] * (new_bytes + cached_bytes), 0.0),
        items=batch * heads * np.ceil(seq / 128.0),  # a thread block of 128 query rows
    )


def _prefill_features(dims: Dims) -> Array:
    pairs = visible_pairs(dims["seq"], dims["prefix"], dims["window"])
    reach = 2.0 * pairs / np.maximum(dims["seq"], 1.0)  # = seq without prefix or window
    group = dims["heads"] / dims["kv_heads"]
    work = prefill_work(dims, "bf16")
    kernel = (dims["batch"] * dims["heads"], dims["seq"], reach, group, dims["head_dim"], _windowed(dims))
    return _columns(*kernel, dims["batch"], work.flops, work.hbm_bytes)


def decode_work(dims: Dims, dtype: str) -> Work:
    """One query token a request against `kv_len` cached tokens: the whole (windowed) cache is read once."""
    batch, heads, kv_heads, size = dims["batch"], dims["heads"], dims["kv_heads"], dims["head_dim"]
    length = np.where(dims["window"] > 0, np.minimum(dims["kv_len"], dims["window"]), dims["kv_len"])
    moved = batch * size * (STORED_BYTES[dtype] * 2.0 * kv_heads * length + ACTIVATION_BYTES * 2.0 * heads)
    return Work(flops=4.0 * batch * heads * size * length, hbm_bytes=moved, items=batch * kv_heads)


def _decode_features(dims: Dims) -> Array:
    length = np.where(dims["window"] > 0, np.minimum(dims["kv_len"], dims["window"]), dims["kv_len"])
    group = dims["heads"] / dims["kv_heads"]
    kernel = (dims["batch"] * dims["kv_heads"], np.maximum(length, 1.0), group, dims["head_dim"], _windowed(dims))
    return _columns(*kernel, dims["batch"], decode_work(dims, "bf16").hbm_bytes)


# MLA of DeepSeek-V2/V3/R1, Kimi-K2 (config.json): 512 latent + 64 rope cached elements; 128 + 64 per-head query and
# key, 128 per-head value when prefilling.
MLA_LATENT, MLA_ROPE, MLA_NOPE, MLA_VALUE = 512.0, 64.0, 128.0, 128.0


def mla_prefill_work(dims: Dims, dtype: str) -> Work:
    """Prefill of latent attention in its expanded form (heads x (128 + 64) keys, 128 values)."""
    batch, seq, heads, prefix = dims["batch"], dims["seq"], dims["heads"], dims["prefix"]
    pairs = visible_pairs(seq, prefix, 0.0 * seq)
    per_token = ACTIVATION_BYTES * heads * 2.0 * (MLA_NOPE + MLA_ROPE + MLA_VALUE)
    cached = STORED_BYTES[dtype] * prefix * (MLA_LATENT + MLA_ROPE)
    return Work(
        flops=2.0 * batch * heads * (MLA_NOPE + MLA_ROPE + MLA_VALUE) * pairs,
        hbm_bytes=np.where(seq > 0, batch * (seq * per_token + cached), 0.0),
        items=batch * heads * np.ceil(seq / 128.0),
    )


def _mla_prefill_features(dims: Dims) -> Array:
    pairs = visible_pairs(dims["seq"], dims["prefix"], 0.0 * dims["seq"])
    reach = 2.0 * pairs / np.maximum(dims["seq"], 1.0)
    work = mla_prefill_work(dims, "bf16")
    return _columns(dims["batch"], dims["seq"], reach, dims["heads"], work.flops, work.hbm_bytes)


def mla_decode_work(dims: Dims, dtype: str) -> Work:
    """Decode of latent attention in its absorbed form: the latent cache is read once for all heads, and two batched
    projections (query to latent, latent to value) stand around the attention kernel."""
    batch, heads, length = dims["batch"], dims["heads"], dims["kv_len"]
    absorbed = mla_absorbed_work(dims)
    query = ACTIVATION_BYTES * heads * (2.0 * MLA_LATENT + MLA_ROPE)
    cache = batch * (length * STORED_BYTES[dtype] * (MLA_LATENT + MLA_ROPE) + query)
    return Work(
        flops=2.0 * batch * heads * length * (2.0 * MLA_LATENT + MLA_ROPE) + 2.0 * absorbed.flops,
        hbm_bytes=cache + 2.0 * absorbed.hbm_bytes,
        items=1.0 * batch,
    )


def mla_absorbed_work(dims: Dims) -> Work:
    """One of the two batched projections of an absorbed decode (they are of equal size)."""
    batch, heads = dims["batch"], dims["heads"]
    weights = heads * MLA_LATENT * MLA_NOPE  # MLA_VALUE is as wide
    moved = ACTIVATION_BYTES * (weights + batch * heads * (MLA_LATENT + MLA_NOPE))
    return Work(flops=2.0 * batch * weights, hbm_bytes=np.where(batch > 0, moved, 0.0))


def _mla_decode_features(dims: Dims) -> Array:
    length = np.maximum(dims["kv_len"], 1.0)
    return _columns(dims["batch"], length, dims["heads"], dims["batch"] * length)


# Routing skew assumed when pricing experts: the tables' "power_law_1.01" synthetic routing, whose expert loads are
# log-uniform between 1 and 0.8 x tokens before they are scaled to tokens x top_k.
ROUTING = "power_law_1.01"
ROUTING_TOP_SHARE = 0.8


def activated_experts(tokens: Array, top_k: Array, num_experts: Array) -> Array:
    """Expected number of experts with at least one of tokens x top_k assignments under `ROUTING`, [b].

    Load of the expert at quantile u is proportional to exp(u * ln(0.8 tokens)); it is idle when it rounds to 0.
    """
    spread = np.log(np.maximum(ROUTING_TOP_SHARE * tokens, 1.0 + 1e-6))
    mean = np.expm1(spread) / spread
    idle_below = np.log(np.maximum(0.5 * num_experts * mean / np.maximum(tokens * top_k, 1e-9), 1e-12)) / spread
    active = num_experts * (1.0 - np.clip(idle_below, 0.0, 1.0))
    return np.where(tokens > 0, np.clip(active, np.minimum(top_k, num_experts), num_experts), 0.0)


def moe_work(dims: Dims, dtype: str) -> Work:
    """One rank's routed experts: gated up, down. `matrices` (optional) is 3 with a gate, 2 without."""
    tokens, inter = dims["tokens"], dims["inter"] / dims["moe_tp"]
    rows = tokens * dims["top_k"] / dims["moe_ep"]
    active = activated_experts(tokens, dims["top_k"], dims["num_experts"]) / dims["moe_ep"]
    active = np.minimum(np.maximum(active, np.where(tokens > 0, 1.0, 0.0)), np.maximum(rows, 1.0))
    matrices = dims.get("matrices", np.full(1, 3.0))
    weights = active * matrices * dims["hidden"] * inter * STORED_BYTES[dtype]
    moved = weights + ACTIVATION_BYTES * rows * (2.0 * dims["hidden"] + matrices * inter)
    flops = 2.0 * matrices * rows * dims["hidden"] * inter
    return Work(flops=flops, hbm_bytes=np.where(tokens > 0, moved, 0.0), items=active)


def _moe_features(given: Dims) -> Array:
    dims = nearest_mixture(given)
    per_expert = dims["tokens"] * dims["top_k"] / dims["num_experts"]
    local = dims["num_experts"] / dims["moe_ep"]
    work = moe_work(dims, "bf16")
    kernel = (dims["tokens"], per_expert, local, dims["inter"] / dims["moe_tp"], dims["hidden"], dims["num_experts"])
    return _columns(*kernel, work.flops, work.hbm_bytes)


GEMM_TILE, GEMM_ALIGNMENT = 128.0, 16  # rows of the usual thread-block tile; elements of a 16-byte fp8 load


def _gemm_features(dims: Dims) -> Array:
    """Beside m, n, k what makes kernels jump: rows of the last tile that are padding (read as m over its tiles) and the
    largest power of two that divides m, since kernels for aligned m are others than those for odd m."""
    m = np.maximum(np.asarray(dims["m"], dtype=np.float64), 1.0)
    aligned = np.gcd(np.round(m).astype(np.int64), GEMM_ALIGNMENT)
    filled = m / (GEMM_TILE * np.ceil(m / GEMM_TILE))
    products = (dims["m"] * dims["n"], dims["n"] * dims["k"], dims["m"] * dims["k"])
    return _columns(dims["m"], dims["n"], dims["k"], aligned.astype(np.float64), filled, *products)


def elementwise_work(dims: Dims, dtype: str) -> Work:  # noqa: ARG001 - the bytes are counted already
    """A memory-bound kernel that moves `bytes`."""
    return Work(flops=0.0 * dims["bytes"], hbm_bytes=dims["bytes"])


def _elementwise_features(dims: Dims) -> Array:
    """log2 bytes, and a column a kind that is 1 where the kernel is of it: an octave apart from all others."""
    kinds = [np.where(dims["kind"] == index, 1.0, 0.0) for index in range(1, len(ELEMENTWISE_KINDS))]
    return np.stack([_columns(dims["bytes"])[:, 0], *kinds], axis=-1)


BYTES = FamilyTerms(names=("bytes",), work=elementwise_work, features=lambda dims: _columns(dims["bytes"]))

FAMILY_TERMS: Mapping[str, FamilyTerms] = {
    "elementwise": FamilyTerms(
        names=("bytes", *ELEMENTWISE_KINDS[1:]), work=elementwise_work, features=_elementwise_features
    ),
    "embedding": BYTES,
    "sampling": BYTES,
    "gemm": FamilyTerms(
        names=("m", "n", "k", "m_aligned", "m_filled", "mn", "nk", "mk"), work=gemm_work, features=_gemm_features
    ),
    "moe": FamilyTerms(
        names=(
            "tokens",
            "tokens_per_expert",
            "local_experts",
            "local_inter",
            "hidden",
            "num_experts",
            "flops",
            "bytes",
        ),
        work=moe_work,
        features=_moe_features,
        beyond=octaves_beyond,
    ),
    "attention_prefill": FamilyTerms(
        names=("batch_heads", "seq", "reach", "group", "head_dim", "windowed", "batch", "flops", "bytes"),
        work=prefill_work,
        features=_prefill_features,
    ),
    "attention_decode": FamilyTerms(
        names=("batch_kv_heads", "kv_len", "group", "head_dim", "windowed", "batch", "bytes"),
        work=decode_work,
        features=_decode_features,
    ),
    "mla_prefill": FamilyTerms(
        names=("batch", "seq", "reach", "heads", "flops", "bytes"),
        work=mla_prefill_work,
        features=_mla_prefill_features,
    ),
    "mla_decode": FamilyTerms(
        names=("batch", "kv_len", "heads", "tokens"), work=mla_decode_work, features=_mla_decode_features
    ),
}
