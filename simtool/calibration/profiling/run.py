"""Run: the loop of a session. Families are taken in random order, each as far as its share of the budget goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from simtool.calibration.points import Row, Sentinel, Skipped, TimedPoint
from simtool.calibration.points_file import Journal, JournalWriter
from simtool.calibration.profiling.adaptive import can_adapt, most_uncertain
from simtool.calibration.profiling.bench import Bench, CannotMeasureError
from simtool.calibration.profiling.cells import Cell, ExtraGroup, MostUncertain
from simtool.calibration.profiling.planning import planned_cells, planned_extras, replay
from simtool.calibration.profiling.request import ProfileRequest

SENTINEL_EVERY = 20
MOST_FAILURES = 25  # in a row: then it is the device, not the points
SLACK = 0.05  # of the budget, by which one family may run ahead of its share

Lane = Cell | ExtraGroup


@dataclass(slots=True, kw_only=True)
class Run:
    """A run on a journal (mutable: it counts). elapsed: seconds of measuring so far, earlier runs included."""

    bench: Bench
    writer: JournalWriter
    elapsed: Callable[[], float]
    tell: Callable[[str], None]
    progress: Callable[[str], None]
    random: np.random.Generator
    written: int = 0
    since_sentinel: int = SENTINEL_EVERY
    failures: int = 0

    def measure(self, request: ProfileRequest, journal: Journal) -> None:
        """Measure until the budget is spent or nothing is left. KeyboardInterrupt passes, the journal being whole."""
        dtypes = tuple(journal.header.request["dtypes"].split(","))
        cells, skipped = planned_cells(request, self.bench, journal.header.machine, dtypes)
        lanes: list[Lane] = [*cells, *planned_extras(request, self.bench)]
        replay(journal.rows, cells, [lane for lane in lanes if isinstance(lane, ExtraGroup)])
        known = {written.row.subject for written in journal.rows if isinstance(written.row, Skipped)}
        for skip in [skip for skip in skipped if skip.subject not in known]:
            self._skip(skip)
        adapt = self._adaptivity()
        while lanes := self._affordable(lanes, request.budget_s):
            if self.since_sentinel >= SENTINEL_EVERY:
                self._write(Sentinel(seconds=self.bench.sentinel()))
                self.since_sentinel = 0
            lane = self._chosen(lanes, request.budget_s)
            if not self._step(lane, adapt):
                lanes.remove(lane)
            if self.failures >= MOST_FAILURES:
                self.tell(f"stopped: {MOST_FAILURES} measurements in a row failed")
                return
            self.progress(f"{self.elapsed():.0f}/{request.budget_s:.0f} s, {self.written} rows, {lane.name}")

    def _adaptivity(self) -> MostUncertain | None:
        if can_adapt():
            return most_uncertain
        self.tell("scipy is not installed: points fill the space, and none is placed where the fit is unsure")
        return None

    def _affordable(self, lanes: Sequence[Lane], budget_s: float) -> list[Lane]:
        left = budget_s - self.elapsed()
        return [lane for lane in lanes if left > 0 and lane.mean_cost_s <= left]

    def _chosen(self, lanes: Sequence[Lane], budget_s: float) -> Lane:
        """A random lane, those farthest behind their share more often; none that is ahead of it."""
        weights = np.array([lane.weight for lane in lanes])
        spent = np.array([lane.spent_s for lane in lanes])
        target = weights / weights.sum() * (spent.sum() + SLACK * budget_s)
        behind = np.maximum(target - spent, 0.0)
        return lanes[int(self.random.choice(len(lanes), p=behind / behind.sum()))]

    def _step(self, lane: Lane, adapt: MostUncertain | None) -> bool:
        """Make one measurement of `lane`; False where it has none left."""
        return self._point(lane, adapt) if isinstance(lane, Cell) else self._extra(lane)

    def _point(self, cell: Cell, adapt: MostUncertain | None) -> bool:
        start = self.elapsed()
        point = cell.next_point(adapt)
        if point is None:
            return False
        try:
            row = TimedPoint(point=point, timing=self.bench.measure(point))
        except CannotMeasureError as error:
            self._skip(Skipped(subject=point.name, reason=str(error)))
            cell.give_up(point.key, self.elapsed() - start)
            self.failures += 1
            return True
        self._write(row)
        cell.record(row, self.elapsed() - start)
        self.failures = 0
        return True

    def _extra(self, group: ExtraGroup) -> bool:
        if not group.pending:
            return False
        start, extra = self.elapsed(), group.pending[0]
        try:
            for row in extra.run():
                self._write(row)
        except CannotMeasureError as error:
            self._skip(Skipped(subject=extra.subject, reason=str(error)))
        group.pending.remove(extra)
        group.made += 1
        group.spent_s += self.elapsed() - start
        return True

    def _skip(self, skip: Skipped) -> None:
        self._write(skip)
        self.tell(f"skipped {skip.subject}: {skip.reason}")

    def _write(self, row: Row) -> None:
        self.writer.append(row, self.elapsed())
        self.written += 1
        self.since_sentinel += 1
