"""execute: a plan and a workload in, an Execution out, on the machine that this runs on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from simtool.calibration.executor.execution import Execution
from simtool.calibration.executor.job import Job, make_job
from simtool.calibration.executor.options import ExecutorOptions
from simtool.calibration.executor.request import ExecuteRequest
from simtool.calibration.executor.settings import differences, settings_of
from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.plan import Parallel, Plan, Pool
from simtool.simulator.grids import capture_sizes
from simtool.workload import Workload

if TYPE_CHECKING:
    from simtool.calibration.executor.run_job import HostClock
    from simtool.calibration.executor.runner import Runner

StartRunner = Callable[[ModelArchitecture, Parallel, ExecutorOptions], "Runner"]


def execute(
    plan: Plan, workload: Workload, request: ExecuteRequest | None = None, *, trace: Path | None = None
) -> Execution:
    """Run `workload` under `plan` with random weights. trace: where a PyTorch profile of the run goes (Kineto's JSON).

    Raises InputError without torch, for a plan that this executor or machine cannot run, and for a process that died;
    InfeasibleError where memory runs out.
    """
    request = request or ExecuteRequest()
    try:
        import torch  # noqa: F401 - said here, where the hint is known

        from simtool.calibration.executor.recording import check_recordable
        from simtool.calibration.executor.scheduled import check_schedule
        from simtool.calibration.profiling.request_text import usual_device
    except ModuleNotFoundError as error:
        hint = "pip install 'llm-simtool[gpu]', or run the emitted job in a container that has torch"
        raise InputError("execute", f"needs {error.name}, which is not installed", hint) from None
    device = request.device or usual_device()
    check_device(device)
    job = make_job(plan, workload, device=device, layers=request.layers, dtype=request.dtype)
    check_devices_here(job, device)
    if request.record_routing:
        check_recordable(job)
    if request.schedule is not None:
        check_schedule(job, request.schedule)
    return run_here(job, request, device=device, environment=environment_of(device, job), trace=trace)


def environment_of(device: str, job: Job) -> dict[str, str | float]:
    """What an execution remembers of the machine: its name, date, versions, driver, and what its seconds are."""
    import torch

    from simtool.calibration.profiling.machine import device_name, machine_facts

    if device == "cpu":
        torch.set_num_threads(1)  # as the model runs
    return {
        "device": device_name(device),
        **machine_facts(device),
        "clock": _CLOCKS[device if is_alone(job) else "processes"],
    }


def is_alone(job: Job) -> bool:
    """Whether this process runs the model by itself."""
    return all(pool.parallel.devices == 1 for pool in job.plan.pools)


_CLOCKS = {
    "processes": "wall time of rank 0; idle time is skipped",
    "cpu": "CPU time of one thread, steps after one another; idle time is skipped",
    "cuda": "wall time around synchronised steps; idle time is skipped",
}


def check_device(device: str) -> None:
    """Raise InputError for cuda where torch sees no GPU."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("cuda", "torch sees no GPU on this machine", "cpu, or a torch and a driver for the GPU")


def check_devices_here(job: Job, device: str) -> None:
    """Raise InputError where the plan takes more GPUs than there are. Processes of a CPU share what there is."""
    if device != "cuda":
        return
    import torch

    there = torch.cuda.device_count()
    needed = max(pool.parallel.devices for pool in job.plan.pools)
    if needed > there:
        hint = "replicas may share a GPU, ranks may not: plan with lower degrees"
        raise InputError(f"{needed} GPUs a replica", f"the plan asks for them and this machine has {there}", hint)


def run_here(
    job: Job,
    request: ExecuteRequest,
    *,
    device: str,
    environment: dict[str, str | float],
    trace: Path | None = None,
    start: StartRunner | None = None,
) -> Execution:
    """Build the replicas' runners, run the job, and end every process that was started, come what may.

    start: makes the runner of a pool's model; without it this process runs it, or starts those that do.
    """
    from simtool.calibration.executor.replicas import replicas_on
    from simtool.calibration.executor.run_job import run_job
    from simtool.calibration.executor.starting import start_runner
    from simtool.calibration.executor.warming import warm_up

    opened: list[Runner] = []
    try:
        runners: list[Runner] = []
        for pool in job.plan.pools:
            blocks = job.engines[len(runners)].num_blocks
            options = executor_options(pool, blocks, request, device)
            opened.append((start or start_runner)(job.architecture, pool.parallel, options))
            warm_up(opened[-1], pool, job)
            opened[-1].forget_experts()  # that warming up has loaded: a run begins with none
            runners += replicas_on(opened[-1], pool.replicas, num_blocks=blocks, lanes=pool.parallel.pp)
        clock = host_clock(device, alone=is_alone(job))
        if any(not pool.offload.off for pool in job.plan.pools):
            clock = replace(clock, steady=None)  # a step run twice finds its experts the second time
        with _profiled(trace):
            execution = run_job(job, runners, seed=request.seed, clock=clock, environment=environment)
        notes = (*differences(job, request, device, environment), *execution.notes)
        return replace(execution, settings=settings_of(job, request, device), notes=notes)
    finally:
        for runner in opened:
            with suppress(Exception):  # the error that ends the run is the one to tell
                runner.close()


def executor_options(pool: Pool, num_blocks: int, request: ExecuteRequest, device: str) -> ExecutorOptions:
    """How the pool's model is executed; all its replicas share one copy of the weights, each has its own KV blocks."""
    graphs = device == "cuda" and not request.record_routing and request.schedule is None
    return ExecutorOptions(
        num_blocks=num_blocks * pool.replicas,
        block_size=pool.kv.block_size,
        device="cuda" if device == "cuda" else "cpu",
        seed=request.seed,
        dtype=request.dtype,
        capture_sizes=tuple(capture_sizes(pool.scheduler)) if graphs else (),
        offload=pool.offload,
        overlap=pool.overlap,
        record_routing=request.record_routing,
        schedule=request.schedule,
    )


def host_clock(device: str, *, alone: bool) -> HostClock:
    """The clock of host work: CPU time of this thread where it runs the model too, else wall time."""
    from simtool.calibration.executor.run_job import HostClock

    if device != "cpu" or not alone:
        return HostClock(read=time.perf_counter)
    import torch

    from simtool.calibration.profiling.clock import PROBES_A_LOOK, Steadiness
    from simtool.calibration.profiling.cpu_setup import keep_freed_memory
    from simtool.calibration.profiling.torch_bench import PROBE_SIZE

    torch.set_num_threads(1)
    keep_freed_memory()
    square = torch.randn(PROBE_SIZE, PROBE_SIZE)
    steadiness = Steadiness(lambda: square @ square, time.thread_time)
    for _ in range(PROBES_A_LOOK):  # what the machine's usual speed is
        steadiness.steady()
    return HostClock(read=time.thread_time, steady=steadiness.steady)


@contextmanager
def _profiled(trace: Path | None) -> Iterator[None]:
    """PyTorch's profiler around the run, where a trace is wanted."""
    if trace is None:
        yield
        return
    from torch.profiler import profile

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would write its start and stop to stderr
    with profile() as profiler:
        yield
    profiler.export_chrome_trace(str(trace))
