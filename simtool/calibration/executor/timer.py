"""FamilyTimer: where a step's time goes, by the simulator's operator families."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class FamilyTimer:
    """Sums the CPU time of calls by family; a call inside another counts once, for the inner one. off: calls only."""

    def __init__(self, *, on: bool, read: Callable[[], float] = time.thread_time) -> None:
        self._on = on
        self._read = read
        self._seconds: dict[str, float] = {}
        self._inside = 0.0

    def run(self, family: str, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What `call` returns; its time goes to `family`."""
        if not self._on:
            return call(*args, **kwargs)
        before, self._inside = self._inside, 0.0
        start = self._read()
        found = call(*args, **kwargs)
        seconds = self._read() - start
        self._seconds[family] = self._seconds.get(family, 0.0) + seconds - self._inside
        self._inside = before + seconds
        return found

    def taken(self) -> Mapping[str, float]:
        """Seconds by family since the last call of this method."""
        seconds, self._seconds, self._inside = self._seconds, {}, 0.0
        return seconds
