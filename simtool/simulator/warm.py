"""Compile the kernel ahead of time: three tiny runs touch every entry that Python calls."""

from __future__ import annotations

import numpy as np

from simtool.plan import Scheduler
from simtool.simulator.engine import EngineSpec, MemoryBudget
from simtool.simulator.jit import COMPILED, cache_folder
from simtool.simulator.run import simulate_engines
from simtool.simulator.tables import StepTables
from simtool.workload import make_workload

_ENTRIES = ("arrive", "advance", "run_event")


def kernel_is_ready() -> bool:
    """Whether the machine code of this version's kernel lies on disk (or nothing is to be compiled)."""
    from pathlib import Path

    folder = Path(cache_folder())
    return not COMPILED or all(any(folder.rglob(f"*.{entry}-*.nbi")) for entry in _ENTRIES)


def compile_kernel() -> None:
    """Compile and keep all of the kernel; does nothing new where that is done."""
    engine = _one_step_engine()
    one, apart = np.ones(4, np.int32), np.arange(4.0)
    simulate_engines([engine], make_workload(apart, one, one))
    simulate_engines([engine] * 2, make_workload(apart, one, one), router="least_outstanding")
    simulate_engines([engine] * 2, make_workload(0 * apart, one, one, max_concurrency=2))


def _one_step_engine() -> EngineSpec:
    """The smallest engine there is: every step takes a second."""
    flat = np.zeros(2)
    tables = StepTables(
        token_s=np.ones((1, 2)),
        shared_s=np.zeros((1, 2)),
        decode_s=np.zeros((1, 2, 2)),
        kv_knots=np.arange(2.0),
        prefill_rate=np.zeros((1, 2, 2)),
        prefill_step=1.0,
        head_s=flat,
        host_s=flat,
        host_overlapped=False,
        p2p_s=flat,
        token_j=flat,
        attention_w=0.0,
        idle_w=0.0,
    )
    nothing = dict.fromkeys(MemoryBudget.__dataclass_fields__, 0.0)
    return EngineSpec(
        tables=tables,
        lower=tables,
        upper=tables,
        scheduler=Scheduler(max_num_seqs=1, max_num_batched_tokens=1),
        block_size=1,
        num_blocks=2,
        watermark_blocks=0,
        prefix_caching=False,
        dp=1,
        pp=1,
        devices=1,
        max_model_len=2,
        memory=MemoryBudget(**nothing),
        provenance={},
    )
