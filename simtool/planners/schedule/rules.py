"""Which list schedules are tried: the fixed policy, a grid of rules, and a local search from the best of them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from simtool.planners.certificate import SEED
from simtool.planners.schedule.layer import FULL, LayerProblem, ModuloSchedule, Operation
from simtool.planners.schedule.placing import Found, ListRule, finest_cut, least_period, whole_cut
from simtool.planners.schedule.ticks import Ticks

_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
_WORTH = (1.1, 1.5, float("inf"))  # an operation is cut where its pieces take no more than this times it whole
_YIELDS = 0.95  # an operation yields where a smaller share costs it less time than it frees


def fixed_chunks(problem: LayerProblem, ticks: Ticks, network: Sequence[str], share: int) -> Found:
    """Every operation cut as finely as it can be; what uses the network gets `share` of the device, the rest the rest.

    The common policy of two-batch overlap with a fixed number of communication SMs, no search in it.
    """
    shares = tuple(
        share if any(mode.used(name) for mode in operation.cuts[0][0].modes for name in network) else FULL - share
        for operation in problem.operations
    )
    cuts = tuple(finest_cut(operation.cuts) for operation in problem.operations)
    return least_period(problem, ticks, _rule(problem, cuts, shares, 0.0))


def list_schedule(problem: LayerProblem, ticks: Ticks) -> tuple[Found, ListRule]:
    """The best of list schedules by earliest end, over prices of resources, shares of the device, rules of cutting."""
    free = (0,) * len(problem.operations)
    asked = {mode.share for piece in problem.pieces() for mode in piece.modes} - {FULL}
    shared = [
        tuple(share if yields(operation) else rest for operation in problem.operations)
        for share in sorted(asked)
        for rest in (0, FULL - share)
    ]
    rules = [
        _rule(problem, cuts, shares, weight)
        for cuts in sorted({tuple(_cuts(problem, worth)) for worth in _WORTH})
        for shares, weight in [*((free, weight) for weight in _WEIGHTS), *((shares, 0.0) for shares in shared)]
    ]
    found = [(least_period(problem, ticks, rule), rule) for rule in rules]
    return min(found, key=lambda row: row[0][0] if row[0] else float("inf"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """How long a local search goes on: `most` moves, or until `wall_s` seconds have passed where that is above 0."""

    most: int
    wall_s: float = 0.0


def improve(problem: LayerProblem, ticks: Ticks, best: Found, rule: ListRule, moves: Moves) -> tuple[Found, ListRule]:
    """Change a thing or three of the rule, so many times; keep what is not worse. The seed is fixed."""
    until = time.monotonic() + moves.wall_s if moves.wall_s > 0 else math.inf
    rng = random.Random(SEED)
    shares = [0, *sorted({mode.share for piece in problem.pieces() for mode in piece.modes})]
    for _ in range(moves.most):
        if time.monotonic() > until:
            break
        tried = rule
        for _ in range(rng.randint(1, 3)):
            tried = _moved(problem, tried, shares, rng)
        found = least_period(problem, ticks, tried, below=best[0] + 1 if best else 0)
        if found and (best is None or found[0] <= best[0]):
            best, rule = found, tried
    return best, rule


def follow(problem: LayerProblem, other: LayerProblem, schedule: ModuloSchedule, rule: ListRule) -> ListRule:
    """The rule with the shares of the device that a schedule for fewer nano-batches gives, and cut where it cuts."""
    shares, cuts = list(rule.shares), list(rule.cuts)
    for placed in schedule.placed:
        own = schedule.piece(other, placed).modes[placed.mode].share
        shares[placed.operation] = (own,) * problem.batches
        whole = whole_cut(problem.operations[placed.operation].cuts)
        split = len(other.operations[placed.operation].cuts[placed.cut]) > 1
        fine = finest_cut(problem.operations[placed.operation].cuts)
        cuts[placed.operation] = fine if split or whole is None else whole
    return replace(rule, shares=tuple(shares), cuts=tuple(cuts))


def yields(operation: Operation) -> bool:
    """Whether a smaller share of the device costs the operation less time than it frees."""
    piece = operation.cuts[0][0]
    fastest = piece.modes[piece.fastest]
    area = fastest.seconds * fastest.share
    return any(mode.seconds * mode.share < _YIELDS * area for mode in piece.modes)


def _rule(problem: LayerProblem, cuts: tuple[int, ...], shares: tuple[int, ...], weight: float) -> ListRule:
    count = problem.batches
    return ListRule(
        cuts=cuts,
        shares=tuple((share,) * count for share in shares),
        weight=weight,
        leads=tuple(batch / count for batch in range(count)),
        early=((0.0,) * count,) * len(cuts),
    )


def _cuts(problem: LayerProblem, worth: float) -> list[int]:
    cuts = []
    for operation in problem.operations:
        whole, fine = whole_cut(operation.cuts), finest_cut(operation.cuts)
        seconds = [sum(piece.modes[piece.fastest].seconds for piece in cut) for cut in operation.cuts]
        cuts.append(fine if whole is None or seconds[fine] <= worth * seconds[whole] else whole)
    return cuts


def _moved(problem: LayerProblem, rule: ListRule, shares: Sequence[int], rng: random.Random) -> ListRule:
    place, batch, what = rng.randrange(len(problem.operations)), rng.randrange(problem.batches), rng.random()
    if what < 0.25:
        share = rng.choice(shares)
        return replace(rule, shares=_with(rule.shares, place, (share,) * problem.batches))
    if what < 0.45:
        row = _with(rule.shares[place], batch, rng.choice(shares))
        return replace(rule, shares=_with(rule.shares, place, row))
    if what < 0.6:
        return replace(rule, cuts=_with(rule.cuts, place, rng.randrange(len(problem.operations[place].cuts))))
    if what < 0.65:
        return replace(rule, weight=rng.choice(_WEIGHTS))
    if what < 0.85 and batch:
        lead = min(0.99, max(0.0, rule.leads[batch] + rng.gauss(0.0, 0.1)))
        return replace(rule, leads=_with(rule.leads, batch, lead))
    early = _with(rule.early[place], batch, rng.gauss(0.0, 0.3))
    return replace(rule, early=_with(rule.early, place, early))


Value = TypeVar("Value")


def _with(row: tuple[Value, ...], place: int, value: Value) -> tuple[Value, ...]:
    return (*row[:place], value, *row[place + 1 :])
