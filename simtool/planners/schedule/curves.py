"""Modes from an interference table: how fast a kind of kernel runs on a share of the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from simtool.errors import InputError
from simtool.planners.schedule.layer import FULL, LayerProblem, Mode, Operation, Piece

DEVICE = "sm"  # the resource whose shares the modes are


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedCurve:
    """Points (share of the device, speed against all of it), joined by lines, from (0, 0) to (1, 1)."""

    points: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        shares, speeds = zip((0.0, 0.0), *self.points, (1.0, 1.0), strict=True)
        if list(shares) != sorted(set(shares)) or list(speeds) != sorted(speeds) or speeds[1] <= 0:
            raise InputError(self.points, "points of a speed curve rise from (0, 0) to (1, 1)")

    def speed(self, share: float) -> float:
        """Speed on `share` of the device."""
        shares, speeds = zip((0.0, 0.0), *self.points, (1.0, 1.0), strict=True)
        return float(np.interp(share, shares, speeds))


LINEAR = SpeedCurve()
# NanoFlow (arXiv 2408.12757, section 4.1): a kernel that waits for memory or the network keeps 0.8 of its speed on 0.4
# of the device; a GEMM's share is its speed by definition.
SATURATING = SpeedCurve(points=((0.4, 0.8),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An operation on some share of the batch, alone: `seconds`, and resource → seconds at the resource's full rate.

    kind: the row of the interference table.
    """

    name: str
    kind: str
    seconds: float
    busy: Mapping[str, float] = field(default_factory=dict)


Price = Callable[[float], Sequence[Part]]  # share of the batch → a layer's operations, always the same ones


def make_layer(
    price: Price,
    precedences: Sequence[tuple[int, int]],
    curves: Mapping[str, SpeedCurve],
    *,
    batches: Sequence[float] = (1.0,),
    shares: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0),
) -> LayerProblem:
    """The layer for nano-batches of these shares of the batch.

    An operation runs as one piece, a piece a nano-batch, or in runs of equally many; each piece is priced at its own
    share, so that weights read again and waves that do not fill count. A piece takes one of `shares` of the device and
    slows as its kind's curve says (no curve: linear).
    """
    if abs(math.fsum(batches) - 1.0) > 1e-9 or min(batches) <= 0:
        raise InputError(tuple(batches), "shares of nano-batches are above 0 and sum to 1")
    count = len(batches)
    runs = [size for size in range(1, count + 1) if count % size == 0]
    sizes: dict[int, dict[int, float]] = {start: {} for start in range(count)}
    priced: dict[float, Sequence[Part]] = {}
    for size in runs:
        for start in range(0, count, size):
            share = round(math.fsum(batches[start : start + size]), 12)
            sizes[start][size] = share
            priced.setdefault(share, price(share))
    operations = []
    for place, part in enumerate(priced[1.0]):
        cuts = tuple(
            tuple(
                Piece(
                    batches=tuple(range(start, start + size)),
                    modes=_modes_of(priced[sizes[start][size]][place], curves, shares),
                )
                for start in range(0, count, size)
            )
            for size in runs
        )
        operations.append(Operation(name=part.name, cuts=cuts))
    return LayerProblem(operations=tuple(operations), precedences=tuple(precedences), batches=count)


def _modes_of(part: Part, curves: Mapping[str, SpeedCurve], shares: Sequence[float]) -> tuple[Mode, ...]:
    return modes(part, curves.get(part.kind, LINEAR), shares)


def modes(part: Part, curve: SpeedCurve, shares: Sequence[float]) -> tuple[Mode, ...]:
    """A mode for each share that is worth it, the fastest first; uses are rounded up to thousandths."""
    found: list[Mode] = []
    for share in sorted(shares, reverse=True):
        seconds = part.seconds / curve.speed(share)
        uses = {DEVICE: thousandths(share)}
        uses |= {name: thousandths(busy / seconds) for name, busy in part.busy.items() if busy > 0}
        found.append(Mode(seconds=seconds, uses=tuple(sorted(uses.items()))))
    return tuple(mode for mode in found if not any(_beats(other, mode) for other in found if other != mode))


def thousandths(share: float) -> int:
    """Rounded up, within FULL."""
    return min(FULL, math.ceil(share * FULL - 1e-9))


def _beats(mode: Mode, other: Mode) -> bool:
    return mode.seconds <= other.seconds and all(mode.used(name) <= other.used(name) for name, _ in mode.uses)
