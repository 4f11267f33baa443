"""Clocks: how long a kernel takes, on fresh buffers each time. Medians, never minima.

A kernel is given as `make`, which builds one call on buffers that no cache holds; building is not timed.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from simtool.calibration.points import Timing

Call = Callable[[], object]
MakeCall = Callable[[], Call]

WIDE_SPREAD = 0.10  # a relative interquartile range above this is measured again
MOST_ROUNDS = 3
FEWEST_SAMPLES, MOST_SAMPLES = 5, 25


class Clock(Protocol):
    """Times calls on one device."""

    def time(self, make: MakeCall) -> Timing:
        """Seconds of one call of what `make` builds."""


def summarised(samples: Sequence[float]) -> Timing:
    """Median and relative interquartile range."""
    low, middle, high = np.quantile(np.asarray(samples), (0.25, 0.5, 0.75))
    return Timing(seconds=float(middle), spread=float((high - low) / middle), repeats=len(samples))


def settled(measure_round: Callable[[], list[float]]) -> Timing:
    """The timing of one round of samples; of up to MOST_ROUNDS together while their spread is wide."""
    samples = measure_round()
    for _ in range(MOST_ROUNDS - 1):
        if summarised(samples).spread <= WIDE_SPREAD:
            break
        samples += measure_round()
    return summarised(samples)


class CpuClock:
    """CPU time of the calling thread: what other processes take is left out. Run torch on one thread.

    shortest_s: a sample repeats calls until it is this long, so that reading the clock costs nothing beside it.
    round_s: samples are taken for so long. read: the clock, in seconds.
    """

    def __init__(
        self, *, shortest_s: float = 2e-4, round_s: float = 0.12, read: Callable[[], float] = time.thread_time
    ) -> None:
        self._shortest_s = shortest_s
        self._round_s = round_s
        self._read = read

    def time(self, make: MakeCall) -> Timing:
        """Seconds of one call; the first one, which sets the kernel up, is not counted."""
        self._sample(make, 1)
        once = self._sample(make, 1)
        inner = math.ceil(min(200.0, max(1.0, self._shortest_s / max(once, 1e-9))))
        count = int(min(MOST_SAMPLES, max(FEWEST_SAMPLES, self._round_s / max(inner * once, 1e-9))))
        return settled(lambda: [self._sample(make, inner) for _ in range(count)])

    def _sample(self, make: MakeCall, inner: int) -> float:
        calls = [make() for _ in range(inner)]
        collecting = gc.isenabled()
        gc.disable()
        try:
            start = self._read()
            for call in calls:
                call()
            return max((self._read() - start) / inner, 1e-9)
        finally:
            if collecting:
                gc.enable()
