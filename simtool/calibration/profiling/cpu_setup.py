"""What a process does once so that CPU timings are steady."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # mallopt parameters (malloc.h)
_USUAL_CACHE_BYTES = 64 * 2**20


def keep_freed_memory() -> None:
    """Have malloc keep what is freed, as the allocators that engines run with do.

    Otherwise every large output is mapped anew and its page faults are timed with the kernel. Nothing happens where the
    C library has no mallopt.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Size of the largest cache of the first CPU; a usual size where the system does not say."""
    sizes = [_size(path) for path in folder.glob("index*/size")]
    return max(sizes, default=0) or _USUAL_CACHE_BYTES


def _size(path: Path) -> int:
    """Bytes of a text as "32K" or "300M"; 0 for anything else."""
    with contextlib.suppress(OSError, ValueError):
        text = path.read_text(encoding="ascii").strip()
        unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 0)
        return int(text[:-1]) * unit if unit else int(text)
    return 0
