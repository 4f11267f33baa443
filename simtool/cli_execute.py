"""`simtool execute`: a plan run for real, by our own engine with random weights."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import ENGINE, QUESTION, WORKLOAD, Json, ScenarioFile, Settings, with_flags
from simtool.cli_simulate import ModelOption, PlanFile, plan_to_run

if TYPE_CHECKING:
    from simtool.calibration.executor.execution import Execution
    from simtool.calibration.executor.request import ExecuteRequest
    from simtool.plan import Plan
    from simtool.scenario import Scenario

Out = Annotated[Path | None, typer.Option("--out", help="Write plan, trace, requests, schedule and timeline here.")]
Device = Annotated[str, typer.Option("--on", help="cuda or cpu \\[the GPU where there is one].")]
Layers = Annotated[int, typer.Option("--layers", help="Layers of the model to run \\[all].", min=0)]
RunSeed = Annotated[int, typer.Option("--run-seed", help="Seed of weights and prompts.", min=0)]
Dtype = Annotated[str, typer.Option("--dtype", help="Of activations and cache: auto, fp32, fp16, bf16.")]
Routing = Annotated[
    Path | None, typer.Option("--record-routing", help="Write which experts each token chose (.npz or .jsonl).")
]
ScheduleFile = Annotated[
    Path | None, typer.Option("--schedule", help="Run nano-batches as this file of simtool overlap --solve says.")
]
Kineto = Annotated[bool, typer.Option("--kineto", help="With --out: a PyTorch profile of the run, kineto.json.")]


@with_flags(QUESTION, WORKLOAD, ENGINE)
def execute(
    given: dict[str, Any],
    plan_file: PlanFile = None,
    model: ModelOption = None,
    scenario: ScenarioFile = None,
    settings: Settings = None,
    on: Device = "",
    layers: Layers = 0,
    run_seed: RunSeed = 0,
    dtype: Dtype = "auto",
    kineto: Kineto = False,
    record_routing: Routing = None,
    schedule: ScheduleFile = None,
    out: Out = None,
    json: Json = False,
) -> int:
    """Run a plan under a workload on this machine: the simulator's schedule, real kernels, random weights.

    Example: simtool execute out/plan.json --num-prompts 40 --request-rate 4 --out run/
    """
    from simtool.calibration.executor.request import ExecuteRequest
    from simtool.cli_options import asked_scenario
    from simtool.step_schedule import load_schedule

    files = _Files(out=out, kineto=kineto, routing=record_routing)
    files.check()
    request = ExecuteRequest(
        device=on,  # type: ignore[arg-type]
        layers=layers,
        seed=run_seed,
        dtype=dtype,
        record_routing=record_routing is not None,
        schedule=load_schedule(schedule) if schedule is not None else None,
    )
    asked = asked_scenario(scenario, given, settings, model)
    _print(_executed(plan_to_run(plan_file, asked), asked, request, files), json)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """What is to be written."""

    out: Path | None
    kineto: bool
    routing: Path | None

    def check(self) -> None:
        """Raise InputError for what could not be written, before anything runs."""
        from simtool.errors import InputError
        from simtool.models.routing.trace_file import check_routing_path

        if self.kineto and self.out is None:
            raise InputError("--kineto", "has no folder to write to", "give --out DIR")
        if self.routing is not None:
            check_routing_path(self.routing)


def _executed(plan: Plan, asked: Scenario, request: ExecuteRequest, files: _Files) -> Execution:
    """Run the plan, write the files where a folder is given, and tell what was changed."""
    from simtool.asking import workload_for
    from simtool.calibration.executor.execute import execute as run_plan
    from simtool.cli_compile import announce_compilation
    from simtool.files import output_folder
    from simtool.models.routing.trace_file import write_routing
    from simtool.terminal import note, progress

    workload = workload_for(plan, asked)
    announce_compilation()
    with output_folder(files.out) if files.out else nullcontext() as building:
        with progress("executing"):
            trace = building / "kineto.json" if building and files.kineto else None
            execution = run_plan(plan, workload, request, trace=trace)
        if building:
            _write(execution, building)
        if files.routing is not None and execution.routing is not None:
            write_routing(execution.routing, files.routing)
    for line in execution.notes:
        note(line)
    return execution


def _write(execution: Execution, folder: Path) -> None:
    """The execution's files, and what vLLM's benchmark and a trace viewer read."""
    from simtool.calibration.executor.execution import inter_token_s
    from simtool.calibration.executor.execution_file import save_execution
    from simtool.json_text import json_text
    from simtool.metrics import result_json, serving_metrics
    from simtool.timeline import write_timeline

    save_execution(execution, folder)
    settings = {"backend": "simtool", "model_id": execution.plan.model}
    saved = result_json(execution.result, serving_metrics(execution.result), settings=settings, save_detailed=True)
    saved["itls"] = inter_token_s(execution)[execution.result.warmup_requests :]
    (folder / "result.json").write_text(json_text(saved), encoding="utf-8")
    write_timeline(execution.plan, execution.result, folder / "timeline.json")


def _print(execution: Execution, json: bool) -> None:
    """The benchmark block of what was measured, or one JSON object."""
    from simtool.json_text import json_text
    from simtool.metrics import Slo, serving_metrics
    from simtool.outputs import benchmark_block
    from simtool.plan_file import plan_dict
    from simtool.terminal import print_json, print_text

    metrics = serving_metrics(execution.result)
    if json:
        about: dict[str, object] = {"plan": plan_dict(execution.plan), "metrics": metrics, "layers": execution.layers}
        about |= {"environment": dict(execution.environment), "settings": execution.settings, "notes": execution.notes}
        print_json(json_text(about))
        return
    print_text(benchmark_block(metrics, execution.workload, Slo()))
