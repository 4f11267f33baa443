"""Streams: several of a GPU beside each other, between a beginning and an end that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class Streams:
    """Streams by number; on a CPU, or where there is one, none: all runs one after the other."""

    def __init__(self, count: int, device: str) -> None:
        self.on = device == "cuda" and count > 1
        self._streams: list[Any] = [self._made() for _ in range(count if self.on else 0)]

    def _made(self) -> Any:
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """What was begun before is done before anything on them."""
        for stream in self._streams:
            stream.wait_stream(torch.cuda.current_stream())

    def end(self, tensors: Sequence[torch.Tensor]) -> None:
        """What follows waits for all of them, whose `tensors` it reads."""
        if not self.on:
            return
        here: Any = torch.cuda.current_stream()
        for stream in self._streams:
            here.wait_stream(stream)
        for tensor in tensors:
            tensor.record_stream(here)

    def stream(self, number: int) -> Any:
        """That stream."""
        return self._streams[number]
