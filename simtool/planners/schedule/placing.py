"""List scheduling of a repeating layer: the baselines, and where the solver starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simtool.planners.schedule.layer import FULL, LayerProblem, ModuloSchedule, Piece, PlacedPiece
from simtool.planners.schedule.profile import Profile
from simtool.planners.schedule.ticks import Ticks

_STEPS = 12  # bisections of the period


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRule:
    """How a list schedule decides.

    cuts: by operation. shares[operation][first nano-batch]: thousandths of the device that a piece gets, 0 where any
    mode may be taken. weight: what a mode's resources cost beside its end. leads: periods by which each nano-batch
    follows the first. early[operation][first nano-batch]: periods by which a piece comes earlier in the list.
    """

    cuts: tuple[int, ...]
    shares: tuple[tuple[int, ...], ...]
    weight: float
    leads: tuple[float, ...]
    early: tuple[tuple[float, ...], ...]

    def modes(self, operation: int, piece: Piece) -> Sequence[int]:
        """Modes that may be taken: those nearest to the share from below, else all."""
        share = self.shares[operation][piece.batches[0]]
        if not share:
            return range(len(piece.modes))
        given = [mode.share for mode in piece.modes]
        most = max((own for own in given if own <= share), default=None)
        return range(len(given)) if most is None else [place for place, own in enumerate(given) if own == most]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A piece in the list: `key` orders it."""

    key: float
    operation: int
    cut: int
    piece: int


Found = tuple[int, list[tuple[Slot, int, int]]] | None  # period, (slot, mode, start) in ticks


def no_overlap(problem: LayerProblem, ticks: Ticks | None = None) -> ModuloSchedule:
    """One piece after another, as whole as can be, each as fast as it can. ticks: durations rounded up to them."""
    at, placed = 0.0, []
    for place in topological(problem):
        cuts = problem.operations[place].cuts
        cut = min(range(len(cuts)), key=lambda n: len(cuts[n]))
        for index, piece in enumerate(cuts[cut]):
            mode = piece.fastest
            placed.append(PlacedPiece(operation=place, cut=cut, piece=index, mode=mode, start_s=at))
            seconds = piece.modes[mode].seconds
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


def least_period(problem: LayerProblem, ticks: Ticks, rule: ListRule, below: int = 0) -> Found:
    """Bisect the period at which the list can be placed. It need not be monotone: the best that worked counts.

    below: gives up where the list cannot be placed in one tick less than this, if above 0.
    """
    shortest, longest = _together(problem, ticks, rule)
    high = below - 1 if below else shortest
    low, best = high // (4 if below else 2 * problem.batches), place_list(problem, ticks, rule, high)
    if best is None and not below:
        low, high = high, longest
        best = place_list(problem, ticks, rule, high)
    for _ in range(_STEPS if best or not below else 0):
        middle = (low + high) // 2
        found = place_list(problem, ticks, rule, middle)
        if found:
            best, high = found, middle
        else:
            low = middle
    return best


def _together(problem: LayerProblem, ticks: Ticks, rule: ListRule) -> tuple[int, int]:
    """Ticks of all pieces one after another, all in their fastest mode and all in their slowest."""
    ranges = [
        [ticks.up(piece.modes[mode].seconds) for mode in rule.modes(place, piece)]
        for place, operation in enumerate(problem.operations)
        for piece in operation.cuts[rule.cuts[place]]
    ]
    return sum(map(min, ranges)), sum(map(max, ranges))


def place_list(problem: LayerProblem, ticks: Ticks, rule: ListRule, period: int) -> Found:
    """Pieces by the time at which they would start on the longest way; each in the mode that ends first."""
    order = topological(problem)
    profile = Profile(period)
    ends: dict[tuple[int, int], int] = {}
    first: dict[int, int] = {}
    placed: list[tuple[Slot, int, int]] = []
    before = {place: [b for b, a in problem.precedences if a == place] for place in order}
    for slot in _slots(problem, rule, order, period * ticks.seconds):
        piece = problem.operations[slot.operation].cuts[slot.cut][slot.piece]
        ready = max(
            (ends[b, batch] for b in before[slot.operation] for batch in piece.batches),
            default=max(first.get(batch, int(rule.leads[batch] * period)) for batch in piece.batches),
        )
        if slot.operation == 0 and 0 in piece.batches:
            ready = 0
        options = []
        for place in rule.modes(slot.operation, piece):
            mode = piece.modes[place]
            begin = profile.earliest(ready, ticks.up(mode.seconds), dict(mode.uses))
            if begin is not None:
                cost = rule.weight * ticks.up(mode.seconds) * max((amount for _, amount in mode.uses), default=0) / FULL
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


def _slots(problem: LayerProblem, rule: ListRule, order: Sequence[int], period_s: float) -> list[Slot]:
    """Pieces in an order that precedences allow: by position on the longest way, later nano-batches later."""
    head = [0.0] * len(problem.operations)
    slots = []
    for place in order:
        cut = problem.operations[place].cuts[rule.cuts[place]]
        own = max(piece.modes[piece.fastest].seconds for piece in cut)
        for b, a in problem.precedences:
            if b == place:
                head[a] = max(head[a], head[place] + own)
    for position, place in enumerate(order):
        for index, piece in enumerate(problem.operations[place].cuts[rule.cuts[place]]):
            lead = max(rule.leads[batch] for batch in piece.batches) - rule.early[place][piece.batches[0]]
            key = head[place] + lead * period_s
            slots.append((key, position, Slot(key=key, operation=place, cut=rule.cuts[place], piece=index)))
    return _feasible([slot for *_, slot in sorted(slots, key=lambda row: row[:2])], problem)


def _feasible(slots: list[Slot], problem: LayerProblem) -> list[Slot]:
    """The same order, a piece moved back behind all that it waits for."""
    done: set[tuple[int, int]] = set()
    out: list[Slot] = []
    while slots:
        slot = next(slot for slot in slots if _needs(problem, slot) <= done)
        slots.remove(slot)
        out.append(slot)
        batches = problem.operations[slot.operation].cuts[slot.cut][slot.piece].batches
        done |= {(slot.operation, batch) for batch in batches}
    return out


def _needs(problem: LayerProblem, slot: Slot) -> set[tuple[int, int]]:
    """(operation, nano-batch) that a piece waits for; all wait for operation 0."""
    before = {b for b, a in problem.precedences if a == slot.operation} | ({0} if slot.operation else set())
    batches = problem.operations[slot.operation].cuts[slot.cut][slot.piece].batches
    return {(b, batch) for b in before for batch in batches}


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
