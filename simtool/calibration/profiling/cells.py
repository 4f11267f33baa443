"""Cell: the points of one family and dtype, and which of them comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from simtool.calibration.points import KernelPoint, TimedPoint
from simtool.calibration.profiling.bench import Extra

# A tenth of the points are measured a second time, to know the noise; a fifth at first, so that few points tell it too.
REPEAT_EVERY, REPEAT_EVERY_AT_FIRST, AT_FIRST = 10, 5, 50
ADAPT_FROM, ADAPT_EVERY = 20, 3  # once the space is filled roughly, every third point goes where the fit is unsure

MostUncertain = Callable[[Sequence[KernelPoint], Sequence[TimedPoint]], KernelPoint]


@dataclass(slots=True, kw_only=True)
class Cell:
    """What was measured of one family and dtype (mutable: it grows). weight: its share of the budget, beside others'.

    left: points to measure, in order; once: points measured a single time so far; both by key. spent_s: time it took.
    """

    name: str
    weight: float
    left: dict[object, KernelPoint]
    once: dict[object, KernelPoint] = field(default_factory=dict)
    timed: list[TimedPoint] = field(default_factory=list)
    spent_s: float = 0.0

    def record(self, row: TimedPoint, cost_s: float) -> None:
        """Note a measured point: a second row of the same point is its repeat."""
        key = row.point.key
        if key in self.left:
            self.once[key] = self.left.pop(key)
        else:
            self.once.pop(key, None)
        self.timed.append(row)
        self.spent_s += cost_s

    def give_up(self, key: object, cost_s: float) -> None:
        """Note a point that cannot be measured, for the first time or again."""
        self.left.pop(key, None)
        self.once.pop(key, None)
        self.spent_s += cost_s

    def next_point(self, most_uncertain: MostUncertain | None) -> KernelPoint | None:
        """A repeat, a point where the fit is unsure, or the next of the design; None when all are measured."""
        count = len(self.timed)
        every = REPEAT_EVERY_AT_FIRST if count < AT_FIRST else REPEAT_EVERY
        if self.once and count % every == every - 1:
            return next(iter(self.once.values()))  # the oldest, so that the noise holds what drifts in between
        if not self.left:
            return None
        if most_uncertain is not None and count >= ADAPT_FROM and count % ADAPT_EVERY == 0:
            return most_uncertain(list(self.left.values()), self.timed)
        return next(iter(self.left.values()))

    @property
    def mean_cost_s(self) -> float:
        """Seconds that a point took on average; 0 before the first."""
        return self.spent_s / len(self.timed) if self.timed else 0.0


@dataclass(slots=True, kw_only=True)
class ExtraGroup:
    """Measurements of one group that are still to be made (mutable: it shrinks). weight, spent_s: as of a Cell."""

    name: str
    weight: float
    pending: list[Extra]
    made: int = 0
    spent_s: float = 0.0

    @property
    def mean_cost_s(self) -> float:
        """Seconds that one took on average; 0 before the first."""
        return self.spent_s / self.made if self.made else 0.0
