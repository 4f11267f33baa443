"""Contention: two workloads at once, on two CUDA streams or two CPU threads, and each alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from simtool.calibration.measured_set import Contention
from simtool.calibration.points import KernelPoint
from simtool.calibration.profiling.arena import Arena
from simtool.calibration.profiling.bench import CannotMeasureError
from simtool.calibration.profiling.clock import Call, Clock, MakeCall, summarised
from simtool.calibration.profiling.copies import host_copy
from simtool.calibration.profiling.kernels_gemm import gemm

CPU_PAIRS = (("gemm", "hbm_copy"), ("gemm", "elementwise"), ("gemm", "gemm"))
CUDA_PAIRS = (*CPU_PAIRS, ("gemm", "h2d"), ("gemm", "d2h"), ("hbm_copy", "h2d"))
CUDA_PASS_S = 2e-3  # one pass of a workload on a stream repeats its call for so long
SAMPLES = 7


def pairs_of(device: str) -> Sequence[tuple[str, str]]:
    """What is measured at once."""
    return CUDA_PAIRS if device == "cuda" else CPU_PAIRS


def timed_pair(first: str, second: str, arena: Arena, clock: Clock, dtype: str) -> Sequence[Contention]:
    """Seconds of one pass of each, alone and while the other keeps running."""
    try:
        makes = (_workload(first, arena, dtype), _workload(second, arena, dtype))
        if arena.device == "cpu":
            alone = [clock.time(make).seconds for make in makes]
            together = [_beside(makes[0], makes[1], clock), _beside(makes[1], makes[0], clock)]
        else:
            alone, together = _on_streams(makes[0](), makes[1]())
    except (MemoryError, RuntimeError) as error:
        raise CannotMeasureError(str(error).partition("\n")[0][:300]) from None
    return [
        Contention(
            first=first,
            second=second,
            first_alone_s=alone[0],
            second_alone_s=alone[1],
            first_together_s=together[0],
            second_together_s=together[1],
        )
    ]


def _workload(name: str, arena: Arena, dtype: str) -> MakeCall:
    """A compute-bound GEMM; a copy or an addition of many times the cache; a copy from or to pinned host memory."""
    cpu = arena.device == "cpu"
    if name == "gemm":
        size = 1024.0 if cpu else 4096.0
        dims = {"m": size / 4 if cpu else size, "n": size, "k": size}
        return gemm(arena, KernelPoint(family="gemm", dtype=dtype, kernel="mm", dims=dims))
    count = 2**22 if cpu else 2**27
    if name in ("h2d", "d2h"):
        return lambda: host_copy(f"{name}_pinned", count, arena)
    if name == "hbm_copy":
        return lambda: _copying(arena.take("bf16", count), arena.take("bf16", count))
    assert name == "elementwise", name
    return lambda: _adding(arena.take("bf16", count), arena.take("bf16", count), arena.take("bf16", count))


def _copying(target: torch.Tensor, source: torch.Tensor) -> Call:
    return lambda: target.copy_(source)


def _adding(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> Call:
    return lambda: torch.add(left, right, out=total)


def _beside(make: MakeCall, other: MakeCall, clock: Clock) -> float:
    """Seconds of `make`'s call while a second thread runs the other one over and over."""
    running, stop = threading.Event(), threading.Event()
    calls = [other() for _ in range(8)]

    def keep_running() -> None:
        torch.set_num_threads(1)
        while not stop.is_set():
            for call in calls:
                call()
            running.set()

    thread = threading.Thread(target=keep_running, daemon=True)
    thread.start()
    try:
        running.wait(timeout=10.0)
        return clock.time(make).seconds
    finally:
        stop.set()
        thread.join()


def _on_streams(first: Call, second: Call) -> tuple[list[float], list[float]]:
    """Alone and together, by events on two streams. Together: the other one is queued for long enough on both sides."""
    from simtool.calibration.profiling.clock_cuda import event_seconds

    calls, counts, alone = (first, second), [], []
    for call in calls:
        call()
        count = max(1, round(CUDA_PASS_S / event_seconds(call)))
        counts.append(count)
        passes = [event_seconds(_repeated(call, count)) / count for _ in range(SAMPLES)]
        alone.append(summarised(passes).seconds)
    together = [
        summarised([_overlapped(calls[i], counts[i], calls[1 - i], counts[1 - i]) for _ in range(SAMPLES)]).seconds
        for i in (0, 1)
    ]
    return alone, together


def _repeated(call: Call, count: int) -> Call:
    def run() -> None:
        for _ in range(count):
            call()

    return run


def _overlapped(call: Call, count: int, other: Call, other_count: int) -> float:
    """Seconds of `call` on one stream while `other` fills a second stream before, during and after it."""
    make_event: Any = torch.cuda.Event
    make_stream: Any = torch.cuda.Stream
    streams = (make_stream(), make_stream())
    started, begin, end = make_event(), make_event(enable_timing=True), make_event(enable_timing=True)
    torch.cuda.synchronize()
    with torch.cuda.stream(streams[1]):
        _repeated(other, max(1, other_count // 4))()
        started.record()
        _repeated(other, 4 * other_count)()
        last = make_event(enable_timing=True)
        last.record()
    with torch.cuda.stream(streams[0]):
        streams[0].wait_event(started)
        begin.record()
        _repeated(call, count)()
        end.record()
    torch.cuda.synchronize()
    if float(end.elapsed_time(last)) < 0:
        raise RuntimeError("the other workload ended first")
    return max(1e-3 * float(begin.elapsed_time(end)) / count, 1e-9)
