"""CudaClock: device events around the replay of a CUDA graph, so that launching costs nothing and caches are cold."""

from __future__ import annotations

import gc
import math
from typing import Any

import torch

from simtool.calibration.points import Timing
from simtool.calibration.profiling.arena import Arena
from simtool.calibration.profiling.clock import Call, MakeCall, settled

WINDOW_S = 1e-3  # a replay is at least this long: its start is then below 1% of it
WARM_S = 4e-3  # replays before the first sample, so that the device's clocks are up
FEWEST_CALLS, MOST_CALLS = 4, 128  # calls in a graph, each on buffers of its own
CACHES = 2.0  # the calls of a graph together read this many times the L2 cache, as far as MOST_CALLS allows
SAMPLES = 9
USUAL_L2_BYTES = 64 * 2**20  # where an old torch does not say


class CudaClock:
    """Times calls on the current CUDA device; `arena` is what their buffers are taken from."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        self._l2_bytes = getattr(properties, "L2_cache_size", USUAL_L2_BYTES)
        gc.freeze()  # torch.cuda.graph collects garbage: what torch itself holds need not be looked at each time

    def time(self, make: MakeCall) -> Timing:
        """Seconds of one call. RuntimeError where the kernel cannot be captured in a graph."""
        before = self._arena.taken_bytes
        calls = [make() for _ in range(FEWEST_CALLS)]
        each_bytes = max(1, (self._arena.taken_bytes - before) // FEWEST_CALLS)
        run_all(calls)  # the first run chooses kernels and loads them
        once = event_seconds(lambda: run_all(calls)) / FEWEST_CALLS
        wanted = max(WINDOW_S / once, CACHES * self._l2_bytes / each_bytes)
        calls += [make() for _ in range(math.ceil(min(wanted, MOST_CALLS)) - FEWEST_CALLS)]
        graph = captured(calls)
        spent = 0.0
        while spent < WARM_S:
            spent += event_seconds(graph.replay)
        return settled(lambda: [event_seconds(graph.replay) / len(calls) for _ in range(SAMPLES)])


def run_all(calls: list[Call]) -> None:
    """Every call once, in order."""
    for call in calls:
        call()


def captured(calls: list[Call]) -> torch.cuda.CUDAGraph:
    """A graph of all calls, which have run before."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run_all(calls)
    return graph


def event_seconds(call: Call) -> float:
    """Device seconds between an event before `call` and one after it."""
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return max(1e-3 * float(start.elapsed_time(end)), 1e-9)
