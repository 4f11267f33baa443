"""Listing: all combinations of replica counts, where they are few enough for memory. No solver is needed then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class Listing:
    """counts [n, columns]; rate [n]: demands a second by all price lists so far; open [n]: not tried yet."""

    counts: NDArray[np.int16]
    rate: Array
    open: NDArray[np.bool_]
    seen_rows: int = 0
    index: dict[tuple[int, ...], int] = field(default_factory=dict)

    def lower(self, rates: Sequence[float], extra: float) -> None:
        """Another price list."""
        np.minimum(self.rate, self.counts @ np.asarray(rates, np.float64) + extra, out=self.rate)
        self.seen_rows += 1

    def close(self, tried: Sequence[tuple[int, ...]]) -> None:
        """Leave these out from now on."""
        for counts in tried:
            self.open[self.index[counts]] = False

    def row(self, place: int) -> tuple[int, ...]:
        """A combination as plain numbers."""
        return tuple(int(n) for n in self.counts[place])


def list_combinations(
    takes: Sequence[tuple[int, ...]], available: Sequence[int], kinds: Sequence[int], cap: float
) -> Listing:
    """Every combination that the devices allow, replicas of unlike kinds apart, but for the empty one."""
    parts = [_of_kind(takes, available, [k == kind for k in kinds]) for kind in sorted(set(kinds))]
    counts = np.concatenate(parts)
    listing = Listing(counts=counts, rate=np.full(len(counts), cap), open=np.ones(len(counts), np.bool_))
    listing.index = {listing.row(place): place for place in range(len(counts))}
    return listing


def _of_kind(takes: Sequence[tuple[int, ...]], available: Sequence[int], wanted: Sequence[bool]) -> NDArray[np.int16]:
    counts = np.zeros((1, len(takes)), np.int16)
    left = np.array([available], np.int64)
    for column, take in enumerate(takes):
        if not wanted[column]:
            continue
        grown, room = [counts], [left]
        while len(grown[-1]):
            fits = (room[-1] >= take).all(axis=1)
            more = grown[-1][fits].copy()
            more[:, column] += 1
            grown.append(more)
            room.append(room[-1][fits] - take)
        counts, left = np.concatenate(grown), np.concatenate(room)
    return counts[1:]
