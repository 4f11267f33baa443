"""Ticks: seconds as whole numbers for CP-SAT, rounded so that what it finds can be run and what it proves holds."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_MOST = 2.0**40  # more than any schedule that can be meant; the solver's sums stay within 64 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Durations are rounded up to ticks of `seconds`, so that a schedule in ticks has room for the true durations.

    slack: ticks that rounding may have added to the best schedule; 0 where every duration is a whole number of ticks.
    """

    seconds: float
    slack: int

    def up(self, seconds: float) -> int:
        """Whole ticks that hold `seconds`."""
        return math.ceil(min(seconds / self.seconds * (1.0 - 1e-12), _MOST))

    def down(self, seconds: float) -> int:
        """Whole ticks within `seconds`."""
        return math.floor(min(seconds / self.seconds * (1.0 + 1e-12), _MOST))

    def bound_s(self, ticks: float) -> float:
        """Seconds that no schedule of the true durations beats, where none of the rounded ones beats `ticks`."""
        return max(0.0, ticks - self.slack) * self.seconds


def make_ticks(durations: Sequence[float], total_s: float, resolution: int, chain: int) -> Ticks:
    """1 s ticks where all durations are whole numbers of a small total, else `resolution` ticks in `total_s`.

    chain: most durations that follow one another in what decides the objective; each is rounded by less than a tick.
    """
    if total_s <= resolution and all(float(value).is_integer() for value in durations):
        return Ticks(seconds=1.0, slack=0)
    return Ticks(seconds=tick_s(total_s, resolution), slack=chain)


def tick_s(total_s: float, resolution: int) -> float:
    """Seconds of a tick when `resolution` ticks make `total_s`; never 0, however small the total."""
    return max(total_s / resolution, sys.float_info.min)
