"""A layer that repeats: operations on nano-batches, each in one of several modes that take parts of one device.

A nano-batch is a part of the step's batch that goes through the layers on its own; "chunks" and "no overlap" are the
cases of several and of one. Modulo scheduling (Rau, "Iterative modulo scheduling", MICRO 1994) repeats one layer's
schedule every period, so that the problem does not grow with the number of layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from simtool.errors import InputError

FULL = 1000  # thousandths of a resource that there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A way to run a piece: `seconds`, during which it takes so many thousandths of each resource.

    share: thousandths of the device (its multiprocessors) that it may use at most.
    """

    seconds: float
    uses: tuple[tuple[str, int], ...] = ()
    share: int = FULL

    def used(self, resource: str) -> int:
        """Thousandths of a resource."""
        return sum(amount for name, amount in self.uses if name == resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One launch of an operation, for the nano-batches `batches`, in any one of `modes`."""

    batches: tuple[int, ...]
    modes: tuple[Mode, ...]

    @property
    def fastest(self) -> int:
        """Place of the mode of the fewest seconds."""
        return min(range(len(self.modes)), key=lambda mode: self.modes[mode].seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """cuts: ways to serve all nano-batches, each a row of pieces that has every nano-batch once."""

    name: str
    cuts: tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProblem:
    """Operations in order; precedences: (before, after) for the same nano-batch of the same layer.

    A nano-batch's layer begins with operation 0, and its next layer begins when all its operations have ended; all
    nano-batches begin a layer within one period. A piece of several nano-batches waits for them all. Pieces are not
    interrupted. Every resource has FULL thousandths.
    """

    operations: tuple[Operation, ...]
    precedences: tuple[tuple[int, int], ...]
    batches: int = 1

    @property
    def resources(self) -> list[str]:
        """Names, sorted."""
        return sorted({name for piece in self.pieces() for mode in piece.modes for name, _ in mode.uses})

    def pieces(self) -> list[Piece]:
        """All pieces of all cuts."""
        return [piece for operation in self.operations for cut in operation.cuts for piece in cut]


def check_layer(problem: LayerProblem) -> None:
    """InputError for a problem that is none."""
    count = len(problem.operations)
    if not count or problem.batches < 1:
        raise InputError(problem.batches, "a layer needs operations and a nano-batch")
    for operation in problem.operations:
        if not operation.cuts:
            raise InputError(operation.name, "needs a way to cut it")
        for cut in operation.cuts:
            served = [batch for piece in cut for batch in piece.batches]
            if sorted(served) != list(range(problem.batches)):
                raise InputError(served, f"a cut of {operation.name} serves {problem.batches} nano-batches once each")
    for piece in problem.pieces():
        if not piece.modes:
            raise InputError(piece.batches, "a piece needs a mode")
        for mode in piece.modes:
            _check_mode(mode)
    order: TopologicalSorter[int] = TopologicalSorter()
    for before, after in problem.precedences:
        if not (0 <= before < count and 0 < after < count):
            raise InputError((before, after), f"a precedence joins two of {count} operations; 0 is the first")
        order.add(after, before)
    try:
        order.prepare()
    except CycleError as error:
        raise InputError(error.args[1], "operations wait for each other", "a layer has no cycle") from None


def _check_mode(mode: Mode) -> None:
    if not (math.isfinite(mode.seconds) and mode.seconds > 0):
        raise InputError(mode.seconds, "a mode takes finite seconds, more than 0")
    if not 0 < mode.share <= FULL:
        raise InputError(mode.share, f"a mode gets 1 to {FULL} thousandths of the device")
    names = [name for name, _ in mode.uses]
    if len(set(names)) < len(names) or any(not 0 < amount <= FULL for _, amount in mode.uses):
        raise InputError(mode.uses, f"a mode uses 1 to {FULL} thousandths of each resource it names")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPiece:
    """Piece `piece` of cut `cut` of an operation, in mode `mode`, begins at start_s in layer 0."""

    operation: int
    cut: int
    piece: int
    mode: int
    start_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuloSchedule:
    """Layer n begins n periods after layer 0, whose pieces `placed` gives in the order of their starts."""

    period_s: float
    placed: tuple[PlacedPiece, ...]

    def piece(self, problem: LayerProblem, placed: PlacedPiece) -> Piece:
        """What was placed."""
        return problem.operations[placed.operation].cuts[placed.cut][placed.piece]

    def end_s(self, problem: LayerProblem, placed: PlacedPiece) -> float:
        """End of a piece in layer 0."""
        return placed.start_s + self.piece(problem, placed).modes[placed.mode].seconds

    def span_s(self, problem: LayerProblem) -> float:
        """From the first start to the last end of layer 0: with n layers, n - 1 periods and this are the makespan."""
        return max(self.end_s(problem, placed) for placed in self.placed) - min(p.start_s for p in self.placed)
