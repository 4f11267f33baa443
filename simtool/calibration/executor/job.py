"""Job: a plan made ready to run: what this executor cannot do is changed and said, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simtool.calibration.executor.options import EXECUTED_OFFLOADS, compute_dtype
from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.models.reduced import plan_architecture
from simtool.plan import Plan, Pool
from simtool.simulator.blank import blank_engine
from simtool.simulator.engine import EngineSpec
from simtool.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """plan: as it will run; notes: what of the user's plan was changed, and why. layers: of `architecture`.

    compute_dtype: of activations, float weights and the KV cache.
    engines: one a replica, without prices: it is their decisions that count.
    """

    plan: Plan
    architecture: ModelArchitecture
    layers: int
    compute_dtype: str
    engines: Sequence[EngineSpec]
    workload: Workload
    notes: tuple[str, ...] = ()


def make_job(plan: Plan, workload: Workload, *, device: str, layers: int = 0, dtype: str = "auto") -> Job:
    """What runs of `plan` on a `device` ("cpu" or "cuda"). layers: of the model (0: all). dtype: as ExecuteRequest's.

    KV blocks are fixed here: as many as the engine has, or as the workload can fill at most.
    Raises InputError for what cannot run, InfeasibleError where the model does not fit.
    """
    from simtool.run import engines_of

    architecture = plan_architecture(plan, layers)
    pools = tuple(executable_pool(pool, architecture, device, dtype)[0] for pool in plan.pools)
    engines = engines_of(replace(plan, pools=pools), workload, layers=layers)
    fixed = replace(plan, pools=_with_blocks(plan.pools, engines, workload))
    return given_job(fixed, workload, device=device, layers=layers, dtype=dtype)


def given_job(plan: Plan, workload: Workload, *, device: str, layers: int = 0, dtype: str = "auto") -> Job:
    """The job of a plan whose KV blocks are fixed, as `simtool emit --target torchrun` writes it: nothing is priced.

    Needs no profile and no device catalogue. Raises InputError.
    """
    architecture = plan_architecture(plan, layers)
    pools, notes, engines = [], [], []
    for pool in plan.pools:
        changed, told = executable_pool(pool, architecture, device, dtype)
        pools.append(changed)
        notes += [note for note in told if note not in notes]
        engines += [_engine(changed, architecture)] * pool.replicas
    whole = len(plan_architecture(plan).layers)
    if len(architecture.layers) < whole:
        notes.append(f"{layers} of {whole} layers, in the run and in the prediction")
    return Job(
        plan=replace(plan, pools=tuple(pools)),
        architecture=architecture,
        layers=len(architecture.layers),
        compute_dtype=compute_dtype(architecture, dtype),
        engines=engines,
        workload=workload,
        notes=tuple(notes),
    )


def _engine(pool: Pool, architecture: ModelArchitecture) -> EngineSpec:
    """The engine of a pool that fixes its KV blocks; its context limit is compile's."""
    blocks = pool.kv.num_gpu_blocks
    if not blocks:
        raise InputError("num_gpu_blocks", "the plan does not fix its KV blocks", "simtool emit --target torchrun")
    asked, room = pool.scheduler.max_model_len, blocks * pool.kv.block_size
    longest = min(asked or architecture.max_position_embeddings, room)
    return blank_engine(pool, num_blocks=blocks, max_model_len=longest)


def executable_pool(
    pool: Pool, architecture: ModelArchitecture, device: str, dtype: str = "auto"
) -> tuple[Pool, list[str]]:
    """The pool as the executor runs it, and what was changed. Raises InputError for what it cannot run."""
    if pool.scheduler.scheduling == "static":
        hint = "chunked, no_chunking or prefill_first"
        raise InputError("scheduling static", "is simulated, not executed", hint)
    if pool.offload.policy not in EXECUTED_OFFLOADS:
        hint = f"--offload {' or '.join(f'{name},slots=N' for name in EXECUTED_OFFLOADS[1:])}"
        raise InputError(f"offload {pool.offload.policy}", "is simulated, not executed", hint)
    if not pool.offload.off and pool.replicas > 1:
        rule = f"the executor's {pool.replicas} replicas share one copy of the weights, and so would share its experts"
        raise InputError("offload", rule, "--replicas 1")
    if len(set(pool.stage_devices)) > 1:
        raise InputError(pool.stage_devices, "the executor runs one kind of device", "plan with one device type")
    scheduler, notes = pool.scheduler, []
    if scheduler.async_scheduling:
        scheduler = replace(scheduler, async_scheduling=False)
        notes.append("async scheduling off: the executor plans a step when the one before it has ended")
    if scheduler.cuda_graphs and device == "cpu":
        scheduler = replace(scheduler, cuda_graphs=False)
        notes.append("CUDA graphs off: a CPU has none")
    kv, cache = pool.kv, compute_dtype(architecture, dtype)
    wanted = architecture.kv_dtype if kv.dtype == "auto" else kv.dtype
    if wanted != cache:
        kv = replace(kv, dtype=cache)
        notes.append(f"KV cache in {cache}, not {wanted}: the executor keeps it in the dtype of activations")
    return replace(pool, scheduler=scheduler, kv=kv), notes


def _with_blocks(pools: Sequence[Pool], engines: Sequence[EngineSpec], workload: Workload) -> tuple[Pool, ...]:
    """The pools with num_gpu_blocks."""
    fixed, replica = [], 0
    tokens = workload.input_tokens.astype(np.int64) + workload.output_tokens
    for pool in pools:
        engine = engines[replica]
        most = int(np.sum(-(-tokens // engine.block_size))) + engine.watermark_blocks
        fixed.append(replace(pool, kv=replace(pool.kv, num_gpu_blocks=min(engine.num_blocks, most))))
        replica += pool.replicas
    return tuple(fixed)
