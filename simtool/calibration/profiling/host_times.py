"""Host times: what the host spends on launching kernels, eagerly and by replaying a CUDA graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from simtool.calibration.measured_set import HostTime
from simtool.calibration.profiling.clock import Call, summarised

LAUNCHES = 200  # fewer than a CUDA queue holds (1,024), so that the host never waits for the device
SAMPLES = 25


def host_times(device: str) -> Sequence[HostTime]:
    """Of the smallest kernel there is, one addition."""
    x = torch.ones(1, device=device)

    def launch() -> object:
        return x.add_(0.0)

    if device == "cpu":
        # No gap: the host is the device, so that nothing idles while it prepares; what it does counts as a step's own.
        # The launch is for the reader: every kernel above was timed with its dispatch, and nobody pays it twice.
        gap = HostTime(name="gap", seconds=0.0, spread=0.0)
        return [_host_time("eager_launch", lambda: _host_seconds(launch, LAUNCHES, time.thread_time)), gap]
    return _cuda_host_times(launch)


def _cuda_host_times(launch: Call) -> Sequence[HostTime]:
    from simtool.calibration.profiling.clock_cuda import captured, event_seconds

    launch()
    one, many = captured([launch]), captured([launch] * LAUNCHES)
    one.replay()
    many.replay()
    torch.cuda.synchronize()

    def idle(call: Call, count: int) -> float:
        torch.cuda.synchronize()
        seconds = _host_seconds(call, count, time.perf_counter)
        torch.cuda.synchronize()
        return seconds

    return [
        _host_time("eager_launch", lambda: idle(launch, LAUNCHES)),
        _host_time("graph_launch", lambda: event_seconds(many.replay) / LAUNCHES),
        _host_time("graph_replay", lambda: idle(one.replay, LAUNCHES)),
        _host_time("synchronize", lambda: idle(torch.cuda.synchronize, LAUNCHES)),
    ]


def _host_seconds(call: Call, count: int, read: Callable[[], float]) -> float:
    start = read()
    for _ in range(count):
        call()
    return max((read() - start) / count, 1e-9)


def _host_time(name: str, sample: Callable[[], float]) -> HostTime:
    sample()
    timing = summarised([sample() for _ in range(SAMPLES)])
    return HostTime(name=name, seconds=timing.seconds, spread=timing.spread)
