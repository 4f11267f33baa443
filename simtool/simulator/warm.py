"""Compile the kernels ahead of time: tiny runs touch every entry that Python calls."""

from __future__ import annotations

import numpy as np

from simtool.plan import KvPolicy, Pool, Scheduler
from simtool.simulator.blank import blank_engine
from simtool.simulator.engine import EngineSpec
from simtool.simulator.jit import COMPILED, cache_folder
from simtool.simulator.run import simulate_engines
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import Resource, Task
from simtool.workload import make_workload

_REPLICA = ("arrive", "advance", "run_event")
_TASKS = ("make_arrays_struct", "run_graph")


def kernel_is_ready(*, replica: bool = True, tasks: bool = True) -> bool:
    """Whether machine code of the kernels asked for, of this version, lies on disk (or nothing is to be compiled)."""
    from pathlib import Path

    folder = Path(cache_folder())
    entries = (*(_REPLICA if replica else ()), *(_TASKS if tasks else ()))
    return not COMPILED or all(any(folder.rglob(f"*.{entry}-*.nbi")) for entry in entries)


def compile_kernel() -> None:
    """Compile and keep the replica's kernel and that of task graphs; does nothing new where that is done."""
    engine = _one_step_engine()
    one, apart = np.ones(4, np.int32), np.arange(4.0)
    simulate_engines([engine], make_workload(apart, one, one))
    simulate_engines([engine] * 2, make_workload(apart, one, one), router="least_outstanding")
    simulate_engines([engine] * 2, make_workload(0 * apart, one, one, max_concurrency=2))
    link = Resource(name="link", rate=1.0)
    simulate_tasks(TaskGraph(resources=(link,), tasks=(Task(name="copy", work={"link": 1.0}),)))


def _one_step_engine() -> EngineSpec:
    """The smallest engine there is: every step takes a second."""
    scheduler = Scheduler(max_num_seqs=1, max_num_batched_tokens=1, async_scheduling=False)
    pool = Pool(device="none", scheduler=scheduler, kv=KvPolicy(block_size=1))
    return blank_engine(pool, num_blocks=2, max_model_len=2, step_s=1.0)
