"""`simtool compile` leaves machine code on disk that the next process uses."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from simtool.simulator import jit
from simtool.simulator.jit import COMPILED, cache_folder
from simtool.simulator.warm import OFFLOAD, REPLICA, TASKS, compile_kernel, kernel_is_ready, run_is_ready


def test_compiled_kernel_is_found_again() -> None:
    compile_kernel()
    assert kernel_is_ready()


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_every_entry_is_compiled() -> None:
    """Whatever Python calls of a kernel, of all kernels that there are."""
    compile_kernel()
    sources = [path.read_text(encoding="utf-8") for path in sorted(Path(jit.__file__).parent.rglob("*.py"))]
    entries = {name for source in sources for name in re.findall(r"@jit_entry\s+def (\w+)", source)}
    assert {"advance", "run_graph", "advance_store"} <= entries
    assert {name for name in entries if not any(Path(cache_folder()).rglob(f"*.{name}-*.nbi"))} == set()


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_a_run_is_ready_with_what_runs_leave_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run calls some entries of a kernel and not the others: it is not announced a second time."""
    monkeypatch.setattr("simtool.simulator.warm.cache_folder", lambda: str(tmp_path))
    assert not run_is_ready(replica=True, tasks=False, offload=False)
    (tmp_path / f"replica.{REPLICA.main}-1.py3.nbi").touch()
    assert run_is_ready(replica=True, tasks=False, offload=False)
    assert not run_is_ready(replica=True, tasks=False, offload=True)
    (tmp_path / f"serve_step.{OFFLOAD.main}-1.py3.nbi").touch()
    assert run_is_ready(replica=True, tasks=False, offload=True)
    assert not kernel_is_ready()


def test_the_main_entry_is_an_entry() -> None:
    assert all(kernel.main in kernel.entries for kernel in (REPLICA, TASKS, OFFLOAD))


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_an_empty_cache_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not kernel_is_ready()


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_another_place_of_the_same_source_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numba finds no code that was compiled from another path, so a second environment has yet to compile."""
    compile_kernel()
    here = cache_folder()
    copy = shutil.copytree(Path(jit.__file__).parent, tmp_path / "simulator")
    monkeypatch.setattr(jit, "__file__", str(copy / "jit.py"))
    assert cache_folder() != here
    assert not kernel_is_ready()
