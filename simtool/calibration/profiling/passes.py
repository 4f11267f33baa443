"""Passes over memory that the memory-bound kernels of plain torch make, in elements read and written an element."""

from __future__ import annotations

from collections.abc import Mapping

# residual_add: two in, one out. layer_norm, rms_norm: fused, one in, one out. silu_mul: SiLU (1 + 1), product (2 + 1).
# rope: four half products (1 + 1 each, of half the width), a difference and a sum of halves (2 + 1), joined (1 + 1).
PASSES: Mapping[str, float] = {
    "residual_add": 3.0,
    "layer_norm": 2.0,
    "rms_norm": 2.0,
    "silu_mul": 5.0,
    "rope": 9.0,
}
EMBEDDING_PASSES = 2.0
SAMPLING_PASSES = 4.5  # in fp32 elements: cast from bf16 (0.5 + 1), softmax (1 + 1), arg max (1)
