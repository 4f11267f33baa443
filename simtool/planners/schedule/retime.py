"""Exact times for an order that was found in rounded ones."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simtool.planners.schedule.layer import LayerProblem, ModuloSchedule
from simtool.planners.schedule.ticks import Ticks

# start of `second` + periods x period >= start of `first` + seconds
Row = tuple[int, int, int, float]
_CLOSE = 1e-12  # of the period: where the bisection ends


def exact_times(problem: LayerProblem, schedule: ModuloSchedule, ticks: Ticks) -> ModuloSchedule:
    """The least period at which every piece still follows all that it followed in ticks; all pieces as early as can be.

    Pieces that run together in the result did so before, so no resource is exceeded (intervals that meet in pairs have
    a moment in common). The schedule in ticks satisfies all rows, so the period never grows.
    """
    rows = _rows(problem, schedule, ticks)
    high = schedule.period_s
    low, best = 0.0, _starts(rows, len(schedule.placed), high)
    if best is None:
        return schedule
    while high - low > _CLOSE * high:
        middle = 0.5 * (low + high)
        found = _starts(rows, len(schedule.placed), middle)
        if found is None:
            low = middle
        else:
            high, best = middle, found
    placed = [replace(p, start_s=float(start)) for p, start in zip(schedule.placed, best, strict=True)]
    return ModuloSchedule(period_s=high, placed=tuple(sorted(placed, key=lambda p: (p.start_s, p.operation))))


def _starts(rows: list[Row], count: int, period_s: float) -> NDArray[np.float64] | None:
    """Least starts from 0 on that satisfy all rows (longest paths, Bellman-Ford); None: a circuit takes longer."""
    first, second = (np.array([row[side] for row in rows]) for side in (0, 1))
    least = np.array([row[3] - row[2] * period_s for row in rows])
    starts = np.zeros(count)
    for _ in range(count + 1):
        after = starts.copy()
        np.maximum.at(after, second, starts[first] + least)
        if np.all(after <= starts + 1e-13 * period_s):
            return starts
        starts = after
    return None


def _rows(problem: LayerProblem, schedule: ModuloSchedule, ticks: Ticks) -> list[Row]:
    pieces = [schedule.piece(problem, placed) for placed in schedule.placed]
    seconds = [piece.modes[p.mode].seconds for piece, p in zip(pieces, schedule.placed, strict=True)]
    begin = [round(p.start_s / ticks.seconds) for p in schedule.placed]
    end = [b + ticks.up(s) for b, s in zip(begin, seconds, strict=True)]
    period = round(schedule.period_s / ticks.seconds)
    used = [{name for name, _ in piece.modes[p.mode].uses} for piece, p in zip(pieces, schedule.placed, strict=True)]
    rows: list[Row] = []
    for i, first in enumerate(schedule.placed):
        for j, second in enumerate(schedule.placed):
            if used[i] & used[j]:
                rows.append((i, j, math.ceil((end[i] - begin[j]) / period), seconds[i]))
            if not set(pieces[i].batches) & set(pieces[j].batches):
                continue
            if (first.operation, second.operation) in problem.precedences:
                rows.append((i, j, 0, seconds[i]))
            if second.operation == 0:
                rows.append((i, j, 1, seconds[i]))
            if first.operation == 0:
                rows.append((i, j, 0, 0.0))
    return rows
