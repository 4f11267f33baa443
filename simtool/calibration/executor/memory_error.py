"""Out of memory, however torch says it, as one InfeasibleError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from simtool.errors import InfeasibleError

_PHRASES = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def is_memory_error(error: BaseException) -> bool:
    """Whether an allocation failed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _PHRASES)


@contextmanager
def memory_told(what: str) -> Iterator[None]:
    """Raise InfeasibleError("memory") where the body runs out of memory. what: "weights and KV cache", "a step"."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        first = (str(error).strip().splitlines() or ["no memory left"])[0][:200]
        relaxation = "fewer KV blocks, fewer layers, a narrower dtype, more devices or offloaded experts"
        raise InfeasibleError("memory", f"{what} do not fit: {first}", relaxation) from error
