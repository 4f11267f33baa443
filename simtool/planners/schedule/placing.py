"""List scheduling of a repeating layer: the baselines, and where the solver starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from simtool.planners.schedule.layer import FULL, LayerProblem, ModuloSchedule, Piece, PlacedPiece
from simtool.planners.schedule.profile import Profile
from simtool.planners.schedule.ticks import Ticks

_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)  # what a mode's resources cost beside its end, tried one after the other
_WORTH = (1.1, 1.5)  # an operation is cut where its pieces take no more than this times it whole; or all are
_STEPS = 12  # bisections of the period
Choose = Callable[[Piece], Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A piece in the list: `key` orders it."""

    key: float
    operation: int
    cut: int
    piece: int


Found = tuple[int, list[tuple[Slot, int, int]]] | None  # period, (slot, mode, start) in ticks


def no_overlap(problem: LayerProblem, ticks: Ticks | None = None) -> ModuloSchedule | None:
    """One whole piece after another, each as fast as it can; None where an operation cannot stay whole.

    ticks: durations rounded up to them.
    """
    at, placed = 0.0, []
    for place in topological(problem):
        operation = problem.operations[place]
        cut = whole_cut(operation.cuts)
        if cut is None:
            return None
        mode = operation.cuts[cut][0].fastest
        placed.append(PlacedPiece(operation=place, cut=cut, piece=0, mode=mode, start_s=at))
        seconds = operation.cuts[cut][0].modes[mode].seconds
        at += ticks.up(seconds) * ticks.seconds if ticks else seconds
    return ModuloSchedule(period_s=at, placed=tuple(placed))


def whole_cut(cuts: Sequence[Sequence[Piece]]) -> int | None:
    """The cut of one piece."""
    return next((place for place, cut in enumerate(cuts) if len(cut) == 1), None)


def finest_cut(cuts: Sequence[Sequence[Piece]]) -> int:
    """The cut of the most pieces."""
    return max(range(len(cuts)), key=lambda place: len(cuts[place]))


def topological(problem: LayerProblem) -> list[int]:
    """Operations in an order that the precedences allow, operation 0 first; otherwise as they stand."""
    missing = {place: {b for b, a in problem.precedences if a == place} for place in range(len(problem.operations))}
    order: list[int] = []
    while missing:
        following = next(place for place, before in missing.items() if not before - set(order))
        order.append(following)
        del missing[following]
    return order


def fixed_chunks(problem: LayerProblem, ticks: Ticks, network: Sequence[str], device: str, share: int) -> Found:
    """Every operation cut as finely as it can be; what uses the network gets `share` of the device, the rest the rest.

    The common policy of two-batch overlap with a fixed number of communication SMs, no search in it.
    """

    def choose(piece: Piece) -> Sequence[int]:
        sends = any(mode.used(name) for mode in piece.modes for name in network)
        most = share if sends else FULL - share
        able = [place for place, mode in enumerate(piece.modes) if mode.used(device) <= most]
        able = able or list(range(len(piece.modes)))
        return [min(able, key=lambda place: piece.modes[place].seconds)]

    cuts = [finest_cut(operation.cuts) for operation in problem.operations]
    return least_period(problem, ticks, cuts, choose, 0.0)


def list_schedule(problem: LayerProblem, ticks: Ticks, device: str) -> Found:
    """The best of list schedules by earliest end: several prices of resources, shares of the device, rules of cutting."""
    best: Found = None
    shares = {mode.used(device) for piece in problem.pieces() for mode in piece.modes} - {0, FULL}
    rules: list[tuple[Choose, float]] = [(_any_mode, weight) for weight in _WEIGHTS]
    rules += [(partial(_side_by_side, device, share, whole), 0.0) for share in sorted(shares) for whole in (False, True)]
    for cuts in sorted({tuple(_cuts(problem, worth)) for worth in (*_WORTH, float("inf"))}):
        for choose, weight in rules:
            found = least_period(problem, ticks, cuts, choose, weight)
            if found and (best is None or found[0] < best[0]):
                best = found
    return best


def _any_mode(piece: Piece) -> Sequence[int]:
    return range(len(piece.modes))


def _side_by_side(device: str, share: int, whole: bool, piece: Piece) -> Sequence[int]:
    """What loses less speed than share takes `share` of the device, the rest takes the rest, or all (whole: either)."""
    fastest = piece.modes[piece.fastest]
    used = [mode.used(device) for mode in piece.modes]
    yielding = [
        place
        for place, mode in enumerate(piece.modes)
        if used[place] == share and mode.seconds * share < 0.95 * fastest.seconds * fastest.used(device)
    ]
    if yielding:
        return yielding
    beside = [place for place in range(len(used)) if used[place] == FULL - share]
    return [*beside, piece.fastest] if whole or not beside else beside


def _cuts(problem: LayerProblem, worth: float) -> list[int]:
    cuts = []
    for operation in problem.operations:
        whole, fine = whole_cut(operation.cuts), finest_cut(operation.cuts)
        seconds = [sum(piece.modes[piece.fastest].seconds for piece in cut) for cut in operation.cuts]
        cuts.append(fine if whole is None or seconds[fine] <= worth * seconds[whole] else whole)
    return cuts


def least_period(problem: LayerProblem, ticks: Ticks, cuts: Sequence[int], choose: Choose, weight: float) -> Found:
    """Bisect the period at which the list can be placed. It need not be monotone: the best that worked counts."""
    order = topological(problem)
    pieces = [piece for op, cut in zip(problem.operations, cuts, strict=True) for piece in op.cuts[cut]]
    seconds = [min(piece.modes[mode].seconds for mode in choose(piece)) for piece in pieces]
    high = sum(ticks.up(value) for value in seconds)
    low, best = high // max(2 * problem.batches, 2), _place(problem, ticks, cuts, choose, weight, order, high)
    for _ in range(_STEPS):
        middle = (low + high) // 2
        found = _place(problem, ticks, cuts, choose, weight, order, middle)
        if found:
            best, high = found, middle
        else:
            low = middle
    return best


def _place(
    problem: LayerProblem,
    ticks: Ticks,
    cuts: Sequence[int],
    choose: Choose,
    weight: float,
    order: Sequence[int],
    period: int,
) -> Found:
    """Pieces by the time at which they would start if nano-batches followed each other at even distances."""
    profile = Profile(period)
    ends: dict[tuple[int, int], int] = {}
    first: dict[int, int] = {}
    placed: list[tuple[Slot, int, int]] = []
    before = {place: [b for b, a in problem.precedences if a == place] for place in order}
    for slot in _slots(problem, cuts, order, period * ticks.seconds):
        piece = problem.operations[slot.operation].cuts[slot.cut][slot.piece]
        ready = max(
            (ends[b, batch] for b in before[slot.operation] for batch in piece.batches),
            default=max(first.get(batch, batch * period // problem.batches) for batch in piece.batches),
        )
        if slot.operation == 0 and 0 in piece.batches:
            ready = 0
        options = []
        for place in choose(piece):
            mode = piece.modes[place]
            begin = profile.earliest(ready, ticks.up(mode.seconds), dict(mode.uses))
            if begin is not None:
                cost = weight * ticks.up(mode.seconds) * max((amount for _, amount in mode.uses), default=0) / FULL
                options.append((begin + ticks.up(mode.seconds) + cost, place, begin))
        if not options:
            return None
        _, place, begin = min(options)
        end = begin + ticks.up(piece.modes[place].seconds)
        for batch in piece.batches:
            ends[slot.operation, batch] = end
            if slot.operation == 0:
                first[batch] = begin
            if end > first[batch] + period or first[batch] >= period:
                return None
        profile.take(begin, end - begin, dict(piece.modes[place].uses))
        placed.append((slot, place, begin))
    return period, placed


def _slots(problem: LayerProblem, cuts: Sequence[int], order: Sequence[int], period_s: float) -> list[Slot]:
    """Pieces in an order that precedences allow: by position on the longest way, later nano-batches later."""
    head = [0.0] * len(problem.operations)
    slots = []
    for place in order:
        cut = problem.operations[place].cuts[cuts[place]]
        own = max(piece.modes[piece.fastest].seconds for piece in cut)
        for b, a in problem.precedences:
            if b == place:
                head[a] = max(head[a], head[place] + own)
    for position, place in enumerate(order):
        for index, piece in enumerate(problem.operations[place].cuts[cuts[place]]):
            key = head[place] + max(piece.batches) * period_s / problem.batches
            slots.append((key, position, Slot(key=key, operation=place, cut=cuts[place], piece=index)))
    return _feasible([slot for *_, slot in sorted(slots, key=lambda row: row[:2])], problem)


def _feasible(slots: list[Slot], problem: LayerProblem) -> list[Slot]:
    """The same order, a piece moved back behind all that it waits for."""
    done: set[tuple[int, int]] = set()
    out: list[Slot] = []
    while slots:
        for place, slot in enumerate(slots):
            piece = problem.operations[slot.operation].cuts[slot.cut][slot.piece]
            needs = {(b, batch) for b, a in problem.precedences if a == slot.operation for batch in piece.batches}
            if slot.operation:
                needs |= {(0, batch) for batch in piece.batches}
            if needs <= done:
                break
        out.append(slots.pop(place))
        done |= {(slot.operation, batch) for batch in piece.batches}
    return out


def as_schedule(found: Found, ticks: Ticks) -> ModuloSchedule | None:
    """In seconds."""
    if found is None:
        return None
    period, placed = found
    pieces = [
        PlacedPiece(operation=s.operation, cut=s.cut, piece=s.piece, mode=mode, start_s=begin * ticks.seconds)
        for s, mode, begin in placed
    ]
    return ModuloSchedule(
        period_s=period * ticks.seconds, placed=tuple(sorted(pieces, key=lambda p: (p.start_s, p.operation)))
    )

