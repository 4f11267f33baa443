"""A layer begun at another operation: the same schedules, said from there on.

Where that operation serves all nano-batches at once, everything else lies between it and its next run, and a schedule
of the repeating layer is one of a single layer from end to end, which a solver finds and bounds far better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simtool.planners.schedule.layer import LayerProblem, ModuloSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """problem: of the rotated layer, whose operation n is operation places[n] of the layer as it was.

    later: operations, of the layer as it was, that the rotated layer has of the layer after.
    """

    problem: LayerProblem
    places: tuple[int, ...]
    later: frozenset[int]

    def forth(self, schedule: ModuloSchedule) -> ModuloSchedule:
        """A schedule of the layer as it was as one of the rotated layer, which begins at 0."""
        begin = next(piece.start_s for piece in schedule.placed if piece.operation == self.places[0])
        placed = []
        for piece in schedule.placed:
            start_s = piece.start_s - begin + (schedule.period_s if piece.operation in self.later else 0.0)
            placed.append(replace(piece, operation=self.places.index(piece.operation), start_s=start_s))
        return replace(schedule, placed=tuple(sorted(placed, key=lambda p: (p.start_s, p.operation))))

    def back(self, schedule: ModuloSchedule) -> ModuloSchedule:
        """A schedule of the rotated layer as one of the layer as it was."""
        placed = []
        for piece in schedule.placed:
            place = self.places[piece.operation]
            start_s = piece.start_s + (0.0 if place in self.later else schedule.period_s)
            placed.append(replace(piece, operation=place, start_s=start_s))
        return replace(schedule, placed=tuple(sorted(placed, key=lambda p: (p.start_s, p.operation))))


def rotated(problem: LayerProblem) -> Rotation | None:
    """The layer begun at its first barrier: an operation in one piece that all others come before or after; None: none.

    What comes before it must come after operation 0, which is what the next layer begins with.
    """
    order = ordered(problem)
    for place, operation in enumerate(problem.operations):
        whole = len(operation.cuts) == 1 and len(operation.cuts[0]) == 1
        before = frozenset(other for other, after in enumerate(order) if place in after)
        led = before <= {0} | order[0]
        if whole and led and len(before) + len(order[place]) + 1 == len(order):
            return _rotated(problem, place, before, order[place])
    return None


def ordered(problem: LayerProblem) -> list[set[int]]:
    """By operation: all that wait for it in the same layer of the same nano-batch."""
    count = len(problem.operations)
    after: list[set[int]] = [set() for _ in range(count)]
    for _ in range(count):
        for first, second in problem.precedences:
            after[first] |= {second} | after[second]
    return after


def _rotated(problem: LayerProblem, barrier: int, before: frozenset[int], after: set[int]) -> Rotation:
    places = (barrier, *sorted(after), *sorted(before))
    new = {place: number for number, place in enumerate(places)}
    edges = {(new[first], new[second]) for first, second in problem.precedences if second != barrier}
    if before:  # the next layer begins when this one has ended
        edges |= {(new[place], new[0]) for place in (barrier, *after)}
    return Rotation(
        problem=replace(
            problem,
            operations=tuple(problem.operations[place] for place in places),
            precedences=tuple(sorted(edges)),
        ),
        places=places,
        later=before,
    )
