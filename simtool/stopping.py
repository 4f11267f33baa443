"""Stopping: SIGTERM ends a program as Ctrl-C does, so that what is half-written is removed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes, as shells give them


def stoppable(main: Callable[[], int]) -> int:
    """The exit code of `main`, in which SIGTERM raises KeyboardInterrupt: TERMINATED where that is what ended it.

    For the main thread of a program: SIGTERM's handler is its own from then on.
    """
    told: list[int] = []

    def terminate(signum: int, _frame: FrameType | None) -> None:
        told.append(signum)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    code = main()
    return TERMINATED if told and code == INTERRUPTED else code
