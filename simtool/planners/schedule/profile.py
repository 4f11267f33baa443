"""What is taken of each resource at every moment of a period that repeats."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping

from simtool.planners.schedule.layer import FULL


class Profile:
    """Use over [0, period) in ticks, as steps. A piece that passes the end goes on at the start."""

    def __init__(self, period: int) -> None:
        self.period = period
        self.times = [0]
        self.used: list[dict[str, int]] = [{}]

    def earliest(self, ready: int, ticks: int, uses: Mapping[str, int]) -> int | None:
        """First start at `ready` or later at which the piece fits; None: nowhere in a period."""
        if ticks > self.period:
            return None
        begin, last = ready, ready + self.period
        while begin < last:
            blocked = self._blocked(begin, ticks, uses)
            if blocked is None:
                return begin
            begin = blocked
        return None

    def take(self, begin: int, ticks: int, uses: Mapping[str, int]) -> None:
        """Take the resources from `begin` on for so long."""
        for first, last in self._parts(begin, ticks):
            self._split(first)
            self._split(last)
            for place in range(bisect_left(self.times, first), bisect_left(self.times, last)):
                step = self.used[place]
                for name, amount in uses.items():
                    step[name] = step.get(name, 0) + amount

    def _blocked(self, begin: int, ticks: int, uses: Mapping[str, int]) -> int | None:
        """The end of the last step inside the span that leaves too little; None where all fit."""
        end = None
        for first, last in self._parts(begin, ticks):
            base = begin + (first - begin) % self.period - first
            place = bisect_right(self.times, first) - 1
            while place < len(self.times) and self.times[place] < last:
                step = self.used[place]
                if any(step.get(name, 0) + amount > FULL for name, amount in uses.items()):
                    until = self.times[place + 1] if place + 1 < len(self.times) else self.period
                    end = base + until
                place += 1
        return end

    def _parts(self, begin: int, ticks: int) -> list[tuple[int, int]]:
        first = begin % self.period
        if first + ticks <= self.period:
            return [(first, first + ticks)]
        return [(first, self.period), (0, first + ticks - self.period)]

    def _split(self, at: int) -> None:
        if at >= self.period:
            return
        place = bisect_left(self.times, at)
        if place == len(self.times) or self.times[place] != at:
            self.times.insert(place, at)
            self.used.insert(place, dict(self.used[place - 1]))
