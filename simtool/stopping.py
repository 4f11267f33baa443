"""Stopping: SIGTERM ends a program as Ctrl-C does, so that what is half-written is removed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT  # exit codes are as shells give them


class Stopped(KeyboardInterrupt):
    """A signal asked for the end. A class of its own: Python 3.11 kills itself at exit where a plain KeyboardInterrupt
    has left code that was compiled from text, as dataclasses are, even if it was caught.
    """


def stoppable(main: Callable[[], int]) -> int:
    """The exit code of `main`, in which SIGINT and SIGTERM raise Stopped; 128 + the signal where main says INTERRUPTED.

    For the main thread of a program: the handlers stay.
    """
    told: list[int] = []

    def stop(signum: int, _frame: FrameType | None) -> None:
        told.append(signum)
        raise Stopped

    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) != signal.SIG_IGN:  # as nohup leaves them
            signal.signal(signum, stop)
    code = main()
    return 128 + told[0] if told and code == INTERRUPTED else code
