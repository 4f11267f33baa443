"""`python -m simtool.calibration.executor PLAN --trace FILE --out DIR`: an emitted plan, run where only torch is.

Alone it starts the processes that the plan needs; under torchrun each rank runs it. Nothing is priced here, so that no
profile and none of the planner's packages are needed (torch, numpy, simpy and pydantic are).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from simtool.calibration.executor.execute import check_device, environment_of, executor_options, run_here
from simtool.calibration.executor.execution import Execution
from simtool.calibration.executor.execution_file import save_execution
from simtool.calibration.executor.job import Job, given_job
from simtool.calibration.executor.recording import check_recordable
from simtool.calibration.executor.request import ExecuteRequest
from simtool.calibration.profiling.request_text import named_device, usual_device
from simtool.errors import InputError, SimtoolError
from simtool.files import output_folder
from simtool.models.routing.trace_file import check_routing_path, write_routing
from simtool.plan_file import load_plan
from simtool.stopping import INTERRUPTED, stoppable
from simtool.traces import read_trace


def main(arguments: Sequence[str]) -> int:
    """Run; 0 when done, 2 for bad input, 1 where memory or a process gave out, 130 where it was interrupted."""
    options = _parser().parse_args(arguments)
    try:
        request = ExecuteRequest(
            device=named_device(options.device) or usual_device(),
            layers=options.layers,
            seed=options.seed,
            dtype=options.dtype,
            record_routing=options.record_routing is not None,
        )
        check_device(request.device)
        plan, workload = load_plan(options.plan), read_trace(options.trace)
        job = given_job(plan, workload, device=request.device, layers=request.layers, dtype=request.dtype)
        if options.record_routing is not None:
            check_recordable(job)
            check_routing_path(options.record_routing)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            _run_rank(job, request, options.out)
        else:
            _run(job, request, options.out, options.record_routing)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    except SimtoolError as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


def _run(job: Job, request: ExecuteRequest, out: Path, routing: Path | None) -> None:
    with output_folder(out) as building:
        environment = environment_of(request.device, job)
        execution = run_here(job, request, device=request.device, environment=environment)
        save_execution(execution, building)
        if routing is not None and execution.routing is not None:
            write_routing(execution.routing, routing)
    _tell(execution, out)


def _run_rank(job: Job, request: ExecuteRequest, out: Path) -> None:
    """One rank of torchrun's world: rank 0 schedules and writes, the others serve it."""
    from simtool.calibration.executor.distributed import DistributedRunner, serve_worker
    from simtool.calibration.executor.world import environment_world

    (pool,) = job.plan.pools
    with environment_world(request.device) as world:
        if world.size != pool.parallel.devices:
            rule = f"torchrun started them and the plan wants {pool.parallel.devices}"
            raise InputError(f"{world.size} processes", rule, "--nproc-per-node is tp x pp x dp")
        if world.rank:
            options = executor_options(pool, job.engines[0].num_blocks, request, request.device)
            serve_worker(world, job.architecture, pool.parallel, options)
            return
        with output_folder(out) as building:
            execution = run_here(
                job,
                request,
                device=request.device,
                environment=environment_of(request.device, job),
                start=lambda arch, parallel, options: DistributedRunner(world, arch, parallel, options),
            )
            save_execution(execution, building)
    _tell(execution, out)


def _tell(execution: Execution, out: Path) -> None:
    print("\n".join([*execution.notes, f"{out} written"]), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simtool.calibration.executor", description=__doc__)
    parser.add_argument("plan", type=Path, help="plan.json of simtool emit --target torchrun")
    parser.add_argument("--trace", type=Path, required=True, help="the requests, in any trace format")
    parser.add_argument("--out", type=Path, required=True, help="folder of the execution")
    parser.add_argument("--device", default="", help="cuda or cpu [the GPU where there is one]")
    parser.add_argument("--layers", type=int, default=0, help="layers of the model to run [all]")
    parser.add_argument("--seed", type=int, default=0, help="of weights and prompts")
    parser.add_argument("--dtype", default="auto", help="of activations and cache: auto, fp32, fp16, bf16")
    parser.add_argument("--record-routing", type=Path, help="write which experts each token chose (.npz or .jsonl)")
    return parser


if __name__ == "__main__":
    sys.exit(stoppable(lambda: main(sys.argv[1:])))
