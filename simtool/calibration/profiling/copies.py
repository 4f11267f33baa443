"""Copies: within the device's memory, and between it and the host, from pinned and from pageable memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from simtool.calibration.points import COPY_KINDS, TimedCopy
from simtool.calibration.profiling.arena import Arena
from simtool.calibration.profiling.bench import CannotMeasureError
from simtool.calibration.profiling.clock import Call, Clock, settled

SMALLEST_BYTES, LARGEST_BYTES, STEP = 2**12, 2**30, 4
SAMPLES, WINDOW_S = 7, 2e-3


def kinds_of(device: str) -> Sequence[str]:
    """A CPU has one memory."""
    return COPY_KINDS if device == "cuda" else ("hbm",)


def copy_sizes(arena_bytes: int) -> list[int]:
    """Bytes, each four times the one before, as far as a quarter of the arena goes."""
    sizes, size = [], SMALLEST_BYTES
    while size <= min(LARGEST_BYTES, arena_bytes // 4):
        sizes.append(size)
        size *= STEP
    return sizes


def timed_copy(kind: str, size_bytes: int, arena: Arena, clock: Clock) -> Sequence[TimedCopy]:
    """One copy. hbm: one memory to itself, both read and write cold."""
    try:
        if kind == "hbm":
            timing = clock.time(lambda: _copy(arena.take("uint8", size_bytes), arena.take("uint8", size_bytes)))
        else:
            call = host_copy(kind, size_bytes, arena)
            call()
            once = _wall_seconds(call, 1)
            count = max(1, min(100, int(WINDOW_S / once)))
            timing = settled(lambda: [_wall_seconds(call, count) for _ in range(SAMPLES)])
    except (MemoryError, RuntimeError) as error:
        raise CannotMeasureError(str(error).partition("\n")[0][:300]) from None
    return [TimedCopy(name=kind, size_bytes=float(size_bytes), timing=timing)]


def host_copy(kind: str, size_bytes: int, arena: Arena) -> Call:
    """A copy between the GPU and host memory; asynchronous where the memory is pinned."""
    pinned = kind.endswith("_pinned")
    host = torch.ones(size_bytes, dtype=torch.uint8, pin_memory=pinned)
    device = arena.take("uint8", size_bytes)
    if kind.startswith("h2d"):
        return lambda: device.copy_(host, non_blocking=pinned)
    return lambda: host.copy_(device, non_blocking=pinned)


def _copy(target: torch.Tensor, source: torch.Tensor) -> Call:
    return lambda: target.copy_(source)


def _wall_seconds(call: Call, count: int) -> float:
    """Host seconds of a copy, `count` in a row, until the last has arrived (a pageable one keeps the host busy)."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        call()
    torch.cuda.synchronize()
    return max((time.perf_counter() - start) / count, 1e-9)
