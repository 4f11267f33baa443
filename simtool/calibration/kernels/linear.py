"""Dense projections."""

from __future__ import annotations

import torch

FP8_MOST = 448.0  # the largest float8_e4m3fn


def scaled_linear(x: torch.Tensor, weight: torch.Tensor, x_scale: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """[m, k] x [n, k]^T with fp8 weights; activations are cast first, as a static scale does. Returns bf16 [m, n]."""
    narrow = x.to(torch.float8_e4m3fn)
    return torch._scaled_mm(narrow, weight.t(), scale_a=x_scale, scale_b=scale, out_dtype=torch.bfloat16)
