"""Clocks: how long a kernel takes, on fresh buffers each time. Medians, never minima.

A kernel is given as `make`, which builds one call on buffers that no cache holds; building is not timed.
"""

from __future__ import annotations

import gc
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from simtool.calibration.points import Timing

Call = Callable[[], object]
MakeCall = Callable[[], Call]

WIDE_SPREAD = 0.10  # a relative interquartile range above this is measured again
MOST_ROUNDS = 3
FEWEST_SAMPLES, MOST_SAMPLES = 5, 25
FEWEST_GOOD = 3  # also of calls longer than LONG_CALL_S, whose times vary little
LONG_CALL_S = 0.02
LONGEST_S = 0.4  # of samples of a CPU point: no further round after that
STEADY = 1.15  # times the faster probes that a probe may take
FAST_QUANTILE, PROBES_KEPT, PROBES_A_LOOK = 0.1, 20_000, 50  # over a whole session: a slow minute is not the usual
PATIENCE_S, PAUSE_S = 0.1, 0.01  # how long a point waits for a steady moment, and between two looks


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


class Steadiness:
    """Whether the machine runs at its usual speed, by a small fixed piece of work timed beside every sample.

    On shared cores a busy neighbour halves a thread's speed for a while, which CPU time does not show. The work says
    when that is so, whatever is being measured: no sample is judged by its own time.
    """

    def __init__(self, work: Call, read: Callable[[], float]) -> None:
        self._work = work
        self._read = read
        self._seen: deque[float] = deque(maxlen=PROBES_KEPT)
        self._usual_s = 0.0

    def steady(self) -> bool:
        """Do the work once; true where it took about as long as it does in the machine's faster times."""
        start = self._read()
        self._work()
        seconds = self._read() - start
        self._seen.append(seconds)
        if len(self._seen) % PROBES_A_LOOK == 0 or len(self._seen) < PROBES_A_LOOK:
            self._usual_s = float(np.quantile(self._seen, FAST_QUANTILE))
        return seconds <= STEADY * self._usual_s


class CpuClock:
    """CPU time of the calling thread: what other processes take is left out. Run torch on one thread.

    shortest_s: a sample repeats calls until it is this long, so that reading the clock costs nothing beside it.
    round_s: samples are taken for so long. probe: work for Steadiness. read: the clock, in seconds.
    """

    def __init__(
        self,
        *,
        shortest_s: float = 2e-4,
        round_s: float = 0.08,
        probe: Call | None = None,
        read: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._shortest_s = shortest_s
        self._round_s = round_s
        self._read = read
        self._sleep = sleep
        self._patience_s = 0.0
        self._steadiness = None if probe is None else Steadiness(probe, read)

    def time(self, make: MakeCall) -> Timing:
        """Seconds of one call; the first one, which sets the kernel up, is not counted.

        Of samples that the machine's speed spoilt none is used, unless there are hardly others.
        """
        self._sample(make, 1)
        once = self._sample(make, 1)
        inner = math.ceil(min(200.0, max(1.0, self._shortest_s / max(once, 1e-9))))
        fewest = FEWEST_GOOD if once > LONG_CALL_S else FEWEST_SAMPLES
        count = int(min(MOST_SAMPLES, max(fewest, self._round_s / max(inner * once, 1e-9))))
        every: list[float] = []
        good: list[float] = []
        self._patience_s = PATIENCE_S
        for _ in range(MOST_ROUNDS):
            for _ in range(count):
                before = self._awaited()
                every.append(self._sample(make, inner))
                if before and self._steady():
                    good.append(every[-1])
            enough = len(good) >= fewest and summarised(good).spread <= WIDE_SPREAD
            if enough or sum(every) * inner > LONGEST_S:
                break
        return summarised(good if len(good) >= FEWEST_GOOD else every)

    def _awaited(self) -> bool:
        """Wait for a steady moment, as far as the point's patience goes."""
        while not self._steady():
            if self._patience_s <= 0:
                return False
            self._sleep(PAUSE_S)
            self._patience_s -= PAUSE_S
        return True

    def _steady(self) -> bool:
        return self._steadiness is None or self._steadiness.steady()

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
