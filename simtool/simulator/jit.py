"""One source, two ways to run: compiled by numba where it is installed, interpreted otherwise.

`NUMBA_DISABLE_JIT=1` interprets too, which is how the tests compare the two.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

try:
    from numba import njit
    from numba.core import config

    COMPILED = not config.DISABLE_JIT
except ImportError:  # pragma: no cover - numba is in the default install
    COMPILED = False


def cache_folder() -> str:
    """Where machine code is kept: a folder of its own for each state of the kernel's source, and for each place of it.

    numba checks the file of a function but not the files of the functions that it has inlined, and finds no code that
    was compiled from another path: a second environment would be told that it has what it then compiles.
    """
    source = hashlib.sha256(str(Path(__file__).parent).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        text = path.read_bytes()
        if path.name in ("jit.py", "state.py", "arrays.py", "struct_fields.py") or b"@jit" in text:
            source.update(text)
    home = os.environ.get("NUMBA_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return str(Path(home) / "simtool" / f"kernel-{source.hexdigest()[:16]}")


def writable(folder: str) -> str:
    """The folder, made; empty where it cannot be made, as in a read-only container: code is then compiled each time."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return folder if os.access(folder, os.W_OK) else ""


def compiled(function: F, **options: bool) -> F:
    """Compile on first use. No fastmath: it rounds as the interpreter does."""
    if not COMPILED:
        return function
    before, config.CACHE_DIR = config.CACHE_DIR, _FOLDER
    try:
        return cast(F, njit(cache=bool(_FOLDER), error_model="numpy", **options)(function))
    finally:
        config.CACHE_DIR = before


def jit(function: F) -> F:
    """A kernel function that only compiled code calls; no wrappers for other callers, which saves compilation."""
    return compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def jit_entry(function: F) -> F:
    """A kernel function that Python calls."""
    return compiled(function)


_FOLDER = writable(cache_folder()) if COMPILED else ""
