"""Arena: random numbers that kernels read, handed out at an ever-advancing place.

Whatever a kernel reads was last touched a whole arena ago, so that it comes from memory and not from a cache; and a
point needs no time to fill its inputs.
"""

from __future__ import annotations

import math

import torch

TORCH_DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int32": torch.int32,
}
WHOLE_NUMBERS = ("int8", "uint8", "int32")
PATTERN = 4_000_037  # random elements before they repeat; prime, so that no two rows of a matrix are alike
ALIGNMENT_BYTES = 256


class ArenaTooSmallError(MemoryError):
    """A tensor is larger than the arena."""


class Arena:
    """Flat buffers of `size_bytes` on `device`, one a dtype, made when asked for. taken_bytes: handed out so far."""

    def __init__(self, device: str, size_bytes: int, seed: int) -> None:
        self.device = device
        self.size_bytes = size_bytes
        self.taken_bytes = 0
        self._seed = seed
        self._flat: dict[str, torch.Tensor] = {}
        self._place: dict[str, int] = {}

    def take(self, dtype: str, *shape: float) -> torch.Tensor:
        """A contiguous tensor of random numbers: standard normal, or uniform for whole numbers."""
        sizes = [int(size) for size in shape]
        flat = self._buffer(dtype)
        count = math.prod(sizes)
        if count > flat.numel():
            raise ArenaTooSmallError(f"{count * flat.element_size():,} bytes are more than {self.size_bytes:,}")
        start = self._place[dtype] if self._place[dtype] + count <= flat.numel() else 0
        step = ALIGNMENT_BYTES // flat.element_size()
        self._place[dtype] = start + -(-count // step) * step
        self.taken_bytes += count * flat.element_size()
        return flat[start : start + count].view(sizes)

    def _buffer(self, dtype: str) -> torch.Tensor:
        if dtype not in self._flat:
            self._flat[dtype] = self._filled(dtype)
            self._place[dtype] = 0
        return self._flat[dtype]

    def _filled(self, dtype: str) -> torch.Tensor:
        kind = TORCH_DTYPES[dtype]
        random = torch.Generator(device=self.device).manual_seed(self._seed)
        flat = torch.empty(self.size_bytes // kind.itemsize, dtype=kind, device=self.device)
        length = min(PATTERN, flat.numel())
        if dtype in WHOLE_NUMBERS:
            pattern = torch.randint(-100, 100, (length,), generator=random, device=self.device)
            pattern = pattern.abs() if dtype == "uint8" else pattern
        else:
            pattern = torch.randn(length, generator=random, device=self.device)
        pattern = pattern.to(kind)
        for start in range(0, flat.numel(), length):
            part = flat[start : start + length]
            part.copy_(pattern[: part.numel()])
        return flat
