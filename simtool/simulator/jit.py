"""One source, two ways to run: compiled by numba where it is installed, interpreted otherwise.

`NUMBA_DISABLE_JIT=1` interprets too, which is how the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

try:
    from numba import njit

    COMPILED = True
except ImportError:  # pragma: no cover - numba is in the default install
    COMPILED = False


def jit(function: F) -> F:
    """Compile `function` on first use and keep the machine code on disk."""
    if not COMPILED:
        return function
    # boundscheck off and no fastmath: the compiled loop rounds as the interpreted one does.
    return cast(F, njit(cache=True, error_model="numpy")(function))
