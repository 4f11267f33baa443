"""One thread a worker, and the kernels compiled once for all of them."""

import os

import pytest

# pytest runs a worker a core, and BLAS threads beside them make the run three times slower.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before workers start, of which each would compile the same; a run without workers compiles what it calls."""
    if getattr(session.config.option, "tx", None) and not session.config.option.collectonly:
        from simtool.simulator.warm import compile_kernel

        compile_kernel()
