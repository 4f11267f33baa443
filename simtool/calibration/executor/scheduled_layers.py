"""ScheduledLayers: a stage's layers for several nano-batches, in the order and on the streams of a schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch

from simtool.calibration.executor.calls import Calls
from simtool.calibration.executor.scheduled import SOLVE_HINT, Turn
from simtool.calibration.executor.streams import Streams
from simtool.errors import InputError

Part = TypeVar("Part")


class Run(Generic[Part]):
    """A run of equal layers. start(layer, nano-batch, part): the layer's calls on what the layer before made of it."""

    def __init__(self, streams: Streams, turns: Sequence[Turn], start: Callable[[int, int, Part], Calls[Part]]) -> None:
        self._streams, self._turns, self._start = streams, turns, start
        self._events: list[Any] = []
        self._last: dict[int, int] = {}  # nano-batch → its last turn

    def parts(self, parts: list[Part]) -> list[Part]:
        """What the last layer makes of each part. InputError where the turns are not what the layers have to do."""
        running: dict[int, tuple[int, Calls[Part], tuple[str, ...]]] = {}
        for turn in self._turns:
            batch = turn.nano_batch
            if batch not in running:
                calls = self._start(turn.layer, batch, parts[batch])
                running[batch] = (turn.layer, calls, next(calls))
            layer, calls, offered = running[batch]
            if layer != turn.layer or turn.call not in offered:
                rule = f"cannot follow in layer {layer} of nano-batch {batch}: there the executor has {offered}"
                raise InputError(turn.call, rule, SOLVE_HINT)
            try:
                running[batch] = (layer, calls, self._sent(calls, turn))
            except StopIteration as ended:
                parts[batch] = ended.value
                del running[batch]
        if running:
            left = ", ".join(name for _, _, offered in running.values() for name in offered)
            raise InputError(left, "the schedule does not launch what the executor has to do", SOLVE_HINT)
        return parts

    def _sent(self, calls: Calls[Part], turn: Turn) -> tuple[str, ...]:
        """Run one call on its stream, after what it waits for and after its nano-batch's call before."""
        if not self._streams.on:
            return calls.send(turn.call)
        stream = self._streams.stream(turn.stream)
        own = self._last.get(turn.nano_batch)
        for place in (*turn.after, *([] if own is None else [own])):
            stream.wait_event(self._events[place])
        self._last[turn.nano_batch] = len(self._events)
        with torch.cuda.stream(stream):
            try:
                return calls.send(turn.call)
            finally:
                self._events.append(stream.record_event())


class Tensors(Protocol):
    """What passes between layers."""

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All of them."""


Passed = TypeVar("Passed", bound=Tensors)


class ScheduledLayers:
    """runs: (layers, their turns) of each run of equal layers of the stage."""

    def __init__(self, runs: Sequence[tuple[int, tuple[Turn, ...]]], device: str) -> None:
        self._runs = runs
        self._streams = Streams(1 + max(turn.stream for _, turns in runs for turn in turns), device)

    @property
    def several(self) -> bool:
        """Whether there are several streams."""
        return self._streams.on

    def run(self, start: Callable[[int, int, Passed], Calls[Passed]], parts: list[Passed]) -> None:
        """All layers, run after run, of each part. start(layer, nano-batch, part): the layer's calls."""
        first = 0
        for count, turns in self._runs:
            self._streams.begin()
            Run(self._streams, turns, partial(_from, start, first)).parts(parts)
            self._streams.end([tensor for part in parts for tensor in part.tensors])
            first += count


def _from(
    start: Callable[[int, int, Passed], Calls[Passed]], first: int, layer: int, batch: int, part: Passed
) -> Calls[Passed]:
    return start(first + layer, batch, part)
