"""`simtool emit`: a plan as commands and manifests that start it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import ENGINE, WORKLOAD, Json, ScenarioFile, Settings, asked_scenario, with_flags

if TYPE_CHECKING:
    from simtool.emit import Emission
    from simtool.emit.benchmark import Traffic
    from simtool.plan import Plan
    from simtool.scenario import Scenario

PlanArgument = Annotated[Path, typer.Argument(help="A plan.json from `simtool plan`.")]
Target = Annotated[str, typer.Option("--target", help="vllm, sglang, trtllm, kubernetes, dynamo, llm-d or torchrun.")]
Engine = Annotated[str, typer.Option("--engine", help="In a container target: vllm, sglang or trtllm \\[vllm].")]
Version = Annotated[str, typer.Option("--engine-version", help="A recorded version of the engine \\[the newest].")]
ModelPath = Annotated[str, typer.Option("--model-path", help="Repository or folder to load \\[the catalogue's].")]
ServedName = Annotated[str, typer.Option("--served-model-name", help="The name that clients ask for \\[the model's].")]
Image = Annotated[str, typer.Option("--image", help="In a container target: the image \\[the engine's own].")]
Client = Annotated[str, typer.Option("--bench-client", help="vllm or sglang \\[SGLang's for sglang, else vLLM's].")]
ClientVersion = Annotated[str, typer.Option("--bench-version", help="A recorded version of the client.")]
Replay = Annotated[bool, typer.Option("--replay", help="Send the simulated requests themselves, not new draws.")]
Check = Annotated[bool, typer.Option("--check-with-engine", help="Ask the installed engine's own parser too.")]
OutFolder = Annotated[Path | None, typer.Option("--out", help="Write the files here instead of printing them.")]


@with_flags(WORKLOAD, ENGINE)
def emit(
    given: dict[str, Any],
    plan_file: PlanArgument,
    target: Target = "vllm",
    engine: Engine = "",
    engine_version: Version = "",
    model_path: ModelPath = "",
    served_model_name: ServedName = "",
    image: Image = "",
    bench_client: Client = "",
    bench_version: ClientVersion = "",
    replay: Replay = False,
    check_with_engine: Check = False,
    scenario: ScenarioFile = None,
    settings: Settings = None,
    out: OutFolder = None,
    json: Json = False,
) -> int:
    """Write a plan for an engine; with workload flags, the benchmark command that sends that workload too.

    Example: simtool emit out/plan.json --target vllm --num-prompts 200 --request-rate 4
    """
    from simtool import emit as emitting
    from simtool.cli_simulate import plan_to_run

    request = emitting.Request(
        target=target,  # type: ignore[arg-type]  # emit() names those that exist
        engine=engine,
        engine_version=engine_version,
        model_path=model_path,
        served_name=served_model_name,
        image=image,
        bench_client=bench_client,
        bench_version=bench_version,
    )
    plan = plan_to_run(plan_file, asked := asked_scenario(scenario, given, settings))
    plan, changed = _emitted_plan(plan, traffic := _traffic(plan, asked, replay), target)
    emission = emitting.emit(plan, request, traffic)
    _show(emission, [*(_verdicts(plan, request) if check_with_engine else []), *changed], out, json)
    return 0


def _emitted_plan(plan: Plan, traffic: Traffic | None, target: str) -> tuple[Plan, tuple[str, ...]]:
    """For the executor, which prices nothing, KV blocks are fixed here, where the device is known; and what changes."""
    if target != "torchrun" or traffic is None:
        return plan, ()
    from simtool.calibration.executor.job import make_job

    job = make_job(plan, traffic.workload, device="cuda")
    return job.plan, job.notes


def _show(emission: Emission, told: list[str], out: Path | None, json: bool) -> None:
    """The files in their folder, or on stdout; remarks, with what else is to be told, on stderr."""
    from simtool.emit import emission_text, write_emission
    from simtool.json_text import json_text
    from simtool.terminal import note, print_json, print_text

    if out:
        write_emission(emission, out)
        note(f"wrote {', '.join(emission.files)} to {out}")
    if json:
        facts = {"engine": emission.table.engine, "version": emission.table.version, "notes": [*told, *emission.notes]}
        print_json(json_text({**facts, "files": emission.files}))
    elif not out:
        print_text(emission_text(emission))
    for line in (*told, *emission.notes):
        note(line)


def _traffic(plan: Plan, asked: Scenario, replay: bool) -> Traffic | None:
    """The workload that was asked for; None where nothing of one was."""
    if not asked.workload.model_fields_set and not replay:
        return None
    from simtool.asking import workload_for
    from simtool.emit.benchmark import Traffic

    return Traffic(section=asked.workload, workload=workload_for(plan, asked), replay=replay)


def _verdicts(plan: Plan, request: Any) -> list[str]:
    """What the installed engine says; a complaint is an error."""
    from simtool.emit.engine_check import check_plan_with_engine
    from simtool.errors import InputError

    lines = []
    for number, verdict in enumerate(check_plan_with_engine(plan, request)):
        if verdict.complaint:
            rule = f"its parser refuses the options of pool {number}: {verdict.complaint}"
            raise InputError(f"installed {request.engine or request.target} {verdict.version}", rule)
        lines.append(f"the installed version {verdict.version} takes the options of pool {number}")
    return lines
