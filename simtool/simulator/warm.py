"""Compile the kernels ahead of time: tiny runs touch every entry that Python calls, each kernel in its own process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What is compiled together. entries: what Python calls; main: the one, nearly all of it, that each serving run
    calls; touch: a run that calls them all.
    """

    entries: tuple[str, ...]
    main: str
    touch: Callable[[], None]

    @property
    def ready(self) -> bool:
        """Whether all of its machine code lies on disk."""
        return _on_disk(self.entries)


def kernel_is_ready() -> bool:
    """Whether machine code of all kernels, of this version, lies on disk (or nothing is to be compiled)."""
    return all(kernel.ready for kernel in (REPLICA, TASKS, OFFLOAD))


def run_is_ready(*, replica: bool, tasks: bool, offload: bool) -> bool:
    """Whether a run of these kernels has little to compile: a run leaves on disk what it called, and not the rest."""
    asked = ((replica, REPLICA), (tasks, TASKS), (offload, OFFLOAD))
    return _on_disk([kernel.main for wanted, kernel in asked if wanted])


def _on_disk(entries: Iterable[str]) -> bool:
    folder = Path(cache_folder())
    return not COMPILED or all(any(folder.rglob(f"*.{entry}-*.nbi")) for entry in entries)


def compile_kernel() -> None:
    """Compile and keep the kernels of the replica, of task graphs and of expert offload: those that are not on disk."""
    lacking = [kernel.touch for kernel in (REPLICA, TASKS, OFFLOAD) if not kernel.ready]
    if lacking:
        # Spawned: numba's compiler is not to be forked, and the caller may have threads.
        with ProcessPoolExecutor(min(len(lacking), os.cpu_count() or 1), get_context("spawn")) as processes:
            for done in [processes.submit(touch) for touch in lacking]:
                done.result()


def _run_replicas() -> None:
    engine = _one_step_engine()
    one, apart = np.ones(4, np.int32), np.arange(4.0)
    simulate_engines([engine], make_workload(apart, one, one))
    simulate_engines([engine] * 2, make_workload(apart, one, one), router="least_outstanding")
    simulate_engines([engine] * 2, make_workload(0 * apart, one, one, max_concurrency=2))


def _one_step_engine() -> EngineSpec:
    """The smallest engine there is: every step takes a second."""
    scheduler = Scheduler(max_num_seqs=1, max_num_batched_tokens=1, async_scheduling=False)
    pool = Pool(device="none", scheduler=scheduler, kv=KvPolicy(block_size=1))
    return blank_engine(pool, num_blocks=2, max_model_len=2, step_s=1.0)


def _run_tasks() -> None:
    link = Resource(name="link", rate=1.0)
    simulate_tasks(TaskGraph(resources=(link,), tasks=(Task(name="copy", work={"link": 1.0}),)))


def _run_offload() -> None:
    """One object, needed once. What no command runs is imported here, so that none pays for it."""
    from simtool.simulator.offload.belady import fewest_loads
    from simtool.simulator.offload.cache import ExpertCache
    from simtool.simulator.offload.needs import Needs
    from simtool.simulator.offload.policy import lru
    from simtool.simulator.offload.prices import Prices
    from simtool.simulator.offload.store import expert_store

    store, one = expert_store(1, 1, 1, 1), np.ones(1, np.int64)
    needs = Needs(starts=np.arange(2), objects=0 * one, tokens=one, layers=1)
    prices = Prices(dense_s=np.ones((1, 1)), expert_s=np.ones((1, 2)), load_s=np.ones(1))
    ExpertCache(store, lru(), prices).run(needs)
    ExpertCache(store, lru(), prices).visit(0, [0])
    fewest_loads(store, needs)
    _serve_offloaded()


def _serve_offloaded() -> None:
    """A step of a serving run without a token in it."""
    from simtool.models.routing.shape import MoeShape
    from simtool.plan import ExpertOffload
    from simtool.simulator.offload.costs import ExpertPrices
    from simtool.simulator.offload.routes import RouteBank
    from simtool.simulator.offload.served import OffloadSpec, ServedStore
    from simtool.simulator.setup import build_state

    one = np.ones(1, np.int32)
    bank = RouteBank(
        experts=np.zeros((1, 1, 1), np.int16),
        guess=np.zeros((1, 1, 0), np.int16),
        uses=np.ones((1, 1), np.int64),
        row=np.zeros(1, np.int64),
        starts=np.arange(2),
        recorded=False,
        num_experts=1,
    )
    spec = OffloadSpec(
        offload=ExpertOffload(policy="lru", slots=1),
        shape=MoeShape(layers=(0,), num_experts=1, top_k=1),
        bank=bank,
        expert_bytes=1.0,
        dense_share=np.ones(1),
    )
    store = ServedStore(spec, ExpertPrices(expert_s=np.ones(2), load_s=1.0, cpu_s=None, sync_s=0.0))
    store.step(build_state([_one_step_engine()], make_workload(np.zeros(1), one, one)), 0, 0, 0.0, 1.0, 0.0)


REPLICA = Kernel(entries=("arrive", "advance", "run_event"), main="run_event", touch=_run_replicas)
TASKS = Kernel(entries=("make_arrays_struct", "run_graph"), main="run_graph", touch=_run_tasks)
OFFLOAD = Kernel(
    entries=("make_offload_struct", "advance_store", "decide_visit", "kept_needs", "serve_step"),
    main="serve_step",
    touch=_run_offload,
)
