"""Unit prefixes and element sizes. SI inside (seconds, bytes, FLOP); ms and GB only where text is printed."""

from __future__ import annotations

GB = 1e9
KIB, MIB, GIB = 2**10, 2**20, 2**30
TERA = 1e12
US, MS = 1e-6, 1e-3

# Bytes an element, scales excluded: a block-scaled dtype adds its own scale bytes (models/quantization.py).
DTYPE_BYTES: dict[str, float] = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
    "mxfp4": 0.5,
    "nvfp4": 0.5,
    "int4": 0.5,
}
