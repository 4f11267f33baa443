"""Linear: a projection in the dtype its weights are stored in."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from simtool.calibration.kernels.linear import FP8_MOST, scaled_linear


class Linear:
    """[m, k] -> [m, n] with weights [n, k]; stored "fp8": one scale for all weights, activations cast as they are."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, stored: str = "bf16") -> None:
        self._bias = bias
        self._weight = weight
        self._scales: tuple[torch.Tensor, torch.Tensor] | None = None
        if stored == "fp8":
            scale = weight.abs().max().float() / FP8_MOST
            self._weight = (weight.float() / scale).to(torch.float8_e4m3fn)
            self._scales = torch.ones_like(scale), scale

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The product, in the dtype of `x`."""
        if self._scales is None:
            return F.linear(x, self._weight, self._bias)
        found = scaled_linear(x, self._weight, *self._scales).to(x.dtype)
        return found if self._bias is None else found + self._bias
