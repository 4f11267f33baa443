"""Bytes an element takes in each storage dtype, block scales and zero points included."""

from __future__ import annotations

from dataclasses import replace

from simtool.errors import InputError
from simtool.models.architecture import Layer, ModelArchitecture
from simtool.units import DTYPE_BYTES

# Scale (and zero-point) bytes an element, in the layout each format is usually served in:
#   fp8    one fp32 scale a 128 x 128 block (DeepSeek-V3 report, section 3.3; `weight_block_size` of HF configs);
#          per-tensor and per-channel scales are smaller still.
#   int8   one fp32 scale an output channel (LLM.int8, SmoothQuant): under 1e-3 bytes for any real width, left out.
#   mxfp4  one E8M0 byte a block of 32 (OCP Microscaling Formats specification v1.0, section 5.1).
#   nvfp4  one E4M3 byte a block of 16 (NVIDIA Blackwell NVFP4; the fp32 scale a tensor is left out).
#   int4   one fp16 scale and one 4-bit zero point a group of 128 (AWQ and GPTQ default group size).
SCALE_BYTES: dict[str, float] = {
    "fp32": 0.0,
    "fp16": 0.0,
    "bf16": 0.0,
    "fp8": 4 / (128 * 128),
    "int8": 0.0,
    "fp4": 1 / 32,
    "mxfp4": 1 / 32,
    "nvfp4": 1 / 16,
    "int4": 2.5 / 128,
}
UNQUANTISED = frozenset({"fp32", "fp16", "bf16"})


def bytes_per_element(dtype: str, scale_bytes_per_element: float | None = None) -> float:
    """Bytes one weight of `dtype` takes, its share of block scales included.

    scale_bytes_per_element: the checkpoint's own block layout (None: the usual one). Raises InputError for an unknown
    dtype.
    """
    if dtype not in SCALE_BYTES:
        raise InputError(dtype, "unknown weight dtype", f"one of {', '.join(sorted(SCALE_BYTES))}")
    if dtype in UNQUANTISED:
        return DTYPE_BYTES[dtype]
    return DTYPE_BYTES[dtype] + (SCALE_BYTES[dtype] if scale_bytes_per_element is None else scale_bytes_per_element)


def cache_bytes_per_element(dtype: str) -> float:
    """Bytes one KV cache element takes. Raises InputError for a dtype no engine stores a cache in."""
    if dtype not in DTYPE_BYTES:
        raise InputError(dtype, "unknown KV cache dtype", "auto, bf16, fp16, fp8, int8, nvfp4")
    return DTYPE_BYTES[dtype] + (SCALE_BYTES[dtype] if dtype in ("fp4", "mxfp4", "nvfp4", "int4") else 0.0)


def with_weight_dtype(arch: ModelArchitecture, dtype: str) -> ModelArchitecture:
    """`arch` with the matrices of its layers stored as `dtype`; "auto" returns it unchanged.

    Embeddings, LM head, norms, routers, biases and convolutions keep their dtype, as engines' online and offline
    quantisers leave them. Raises InputError for an unknown dtype.
    """
    if dtype == "auto":
        return arch
    bytes_per_element(dtype)
    dtypes = replace(
        arch.dtypes,
        attention=dtype,
        mlp=dtype,
        experts=dtype,
        shared_experts=dtype,
        recurrent=dtype,
        scale_bytes_per_element=None,
    )
    return replace(arch, dtypes=dtypes, layers=_plain(arch.layers), mtp_layers=_plain(arch.mtp_layers))


def _plain(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    return tuple(layer if layer.dtypes is None else replace(layer, dtypes=None) for layer in layers)
