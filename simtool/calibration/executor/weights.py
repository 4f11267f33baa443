"""Weights: random matrices that depend on (seed, layer, name) alone; every shard is a slice of the same whole."""

from __future__ import annotations

import hashlib
import math

import torch

NORM_SPREAD = 0.1  # of norm weights around 1
WHOLE = slice(None)


class Weights:
    """Makes matrices on `device` in `dtype`. They differ between CPU and CUDA, whose generators do."""

    def __init__(self, seed: int, device: str, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._seed = seed

    def matrix(
        self, layer: int, name: str, rows: int, columns: int, cut_rows: slice = WHOLE, cut_columns: slice = WHOLE
    ) -> torch.Tensor:
        """A slice of the [rows, columns] matrix, of variance 1 / columns: outputs are as large as inputs."""
        whole = self._normal(layer, name, rows, columns) / math.sqrt(columns)
        return whole[cut_rows, cut_columns].to(self.dtype).contiguous()

    def vector(self, layer: int, name: str, size: int, cut: slice = WHOLE, spread: float = NORM_SPREAD) -> torch.Tensor:
        """A slice of a vector around 0 (a bias)."""
        return (spread * self._normal(layer, name, size))[cut].to(self.dtype).contiguous()

    def norm(self, layer: int, name: str, size: int) -> torch.Tensor:
        """A norm's weights, around 1."""
        return (1.0 + NORM_SPREAD * self._normal(layer, name, size)).to(self.dtype)

    def _normal(self, layer: int, name: str, *shape: int) -> torch.Tensor:
        digest = hashlib.sha256(f"{self._seed}/{layer}/{name}".encode()).digest()
        random = torch.Generator(device=self.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return torch.randn(shape, generator=random, device=self.device)


def share(total: int, parts: int, part: int) -> slice:
    """The part-th of `parts` equal slices of `total`."""
    size = total // parts
    return slice(part * size, (part + 1) * size)
