"""DualPipe's order of passes: micro-batches from both ends, forward beside backward (DeepSeek, `dualpipe.py`)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from simtool.errors import InputError
from simtool.simulator.overlap.pipeline import Orders, Pass


def dual_pipe(ranks: int, batches: int) -> Orders:
    """Half of the micro-batches enter at each end. InputError for odd ranks and for fewer than 2 x ranks batches."""
    if ranks % 2 or batches % 2 or batches < 2 * ranks:
        raise InputError(
            (ranks, batches), "DualPipe needs even ranks, and an even number of batches of at least 2 x ranks"
        )
    return [_order(rank, ranks, batches // 2) for rank in range(ranks)]


@dataclass(slots=True)
class _Rank:
    """One rank's passes so far. Directions are seen from its half: 0 enters at the nearer end."""

    rank: int
    ranks: int
    order: list[Pass] = field(default_factory=list)
    forwards: list[int] = field(default_factory=lambda: [0, 0])
    backwards: list[int] = field(default_factory=lambda: [0, 0])
    weights: deque[tuple[int, int]] = field(default_factory=deque)

    def flow(self, direction: int) -> int:
        return direction ^ int(self.rank >= self.ranks // 2)

    def stage(self, flow: int) -> int:
        return self.ranks - 1 - self.rank if flow else self.rank

    def forward(self, direction: int) -> None:
        flow, batch = self.flow(direction), self._next(self.forwards, direction)
        self.order.append(Pass("F", flow, batch, self.stage(flow)))

    def backward(self, direction: int, *, later: bool = False) -> None:
        """later: the weights' gradients wait for `weight`."""
        flow, batch = self.flow(direction), self._next(self.backwards, direction)
        self.order.append(Pass("B" if later else "BW", flow, batch, self.stage(flow)))
        if later:
            self.weights.append((flow, batch))

    def both(self, forward: int, backward: int) -> None:
        flow, batch = self.flow(forward), self._next(self.forwards, forward)
        other = (self.flow(backward), self._next(self.backwards, backward))
        self.order.append(Pass("FB", flow, batch, self.stage(flow), other))

    def weight(self) -> None:
        flow, batch = self.weights.popleft()
        self.order.append(Pass("W", flow, batch, self.stage(flow)))

    def _next(self, counts: list[int], direction: int) -> int:
        counts[direction] += 1
        return counts[direction] - 1


def _order(rank: int, ranks: int, batches: int) -> list[Pass]:
    """The eight steps of the published code, for `batches` micro-batches from each end."""
    one, half = _Rank(rank=rank, ranks=ranks), ranks // 2
    near = min(rank, ranks - 1 - rank)
    far = half - near - 1
    for _ in range(2 * far):
        one.forward(0)
    for _ in range(near + 1):
        one.forward(0)
        one.forward(1)
    for _ in range(far):
        one.backward(1, later=True)
        one.weight()
        one.forward(1)
    for turn in range(batches - ranks + near + 1):
        if turn == 0 and near == half - 1:  # the middle ranks have nothing to overlap yet
            one.forward(0)
            one.backward(1)
        else:
            one.both(0, 1)
        one.both(1, 0)
    for _ in range(far):
        one.backward(1)
        one.both(1, 0)
    _drain(one, near, far)
    return one.order


def _drain(one: _Rank, near: int, far: int) -> None:
    """The last backward passes, with weights' gradients put off to where the rank would wait."""
    later, turns = False, near + 1
    for turn in range(turns):
        later = later or (turn == turns // 2 and near % 2 == 1)
        one.backward(1, later=later)
        later = later or (turn == turns // 2 and near % 2 == 0)
        one.backward(0, later=later)
    for _ in range(far):
        one.weight()
        one.backward(0, later=True)
    while one.weights:
        one.weight()
