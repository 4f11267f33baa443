"""`simtool compile` leaves machine code on disk that the next process uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from simtool.simulator.jit import COMPILED
from simtool.simulator.warm import compile_kernel, kernel_is_ready


def test_compiled_kernel_is_found_again() -> None:
    compile_kernel()
    assert kernel_is_ready()


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_an_empty_cache_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not kernel_is_ready()
