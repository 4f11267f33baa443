"""`simtool simulate`: one plan, one workload, one run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import ENGINE, QUESTION, WORKLOAD, Json, Out, ScenarioFile, Settings, with_flags

if TYPE_CHECKING:
    from simtool.plan import Plan
    from simtool.run import Run
    from simtool.scenario import Scenario

PlanFile = Annotated[
    Path | None, typer.Argument(help="A plan.json from `simtool plan`. Without it, the flags state the plan.")
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Without a plan file: the model.")]
ExactSteps = Annotated[bool, typer.Option("--exact-steps", help="Step one iteration at a time (same times, slower).")]


@with_flags(QUESTION, WORKLOAD, ENGINE)
def simulate(
    given: dict[str, Any],
    plan_file: PlanFile = None,
    model: ModelOption = None,
    scenario: ScenarioFile = None,
    settings: Settings = None,
    exact_steps: ExactSteps = False,
    out: Out = None,
    json: Json = False,
) -> int:
    """Simulate a plan under a workload; engine flags override the plan's own knobs.

    Example: simtool simulate out/plan.json --trace azure.csv --json
    """
    from simtool.asking import known_prices, slo_of, workload_for
    from simtool.cli_compile import announce_compilation
    from simtool.cli_options import asked_scenario
    from simtool.explaining import unused_profiles
    from simtool.files import output_folder
    from simtool.hardware.own_cluster import own_cluster
    from simtool.outputs import missed, write_run
    from simtool.run import run_plan
    from simtool.terminal import note, progress

    asked = asked_scenario(scenario, given, settings, model)
    plan = plan_to_run(plan_file, asked)
    workload = workload_for(plan, asked)
    prices = known_prices(asked, own_cluster(plan.cluster, plan.profiles).types)
    overlaps, offloads = ([not getattr(pool, name).off for pool in plan.pools] for name in ("overlap", "offload"))
    announce_compilation(tasks=any(overlaps), offload=any(offloads))
    with output_folder(out) if out else nullcontext() as building:
        with progress("simulating"):
            run = run_plan(plan, workload, slo_of(asked), exact_steps=exact_steps, prices=prices)
        if building:
            with progress("writing the report"):
                write_run(run, building)
    print_run(run, json)
    for line in unused_profiles(plan):
        note(line)
    return 1 if missed(run.result, run.slo) or not run.metrics["completed"] else 0


def plan_to_run(plan_file: Path | None, asked: Scenario) -> Plan:
    """The plan of the file with the engine flags on top, or the plan that the flags state."""
    from simtool.adjusting import adjusted
    from simtool.asking import plan_of
    from simtool.errors import InputError
    from simtool.plan_file import load_plan

    if plan_file is None:
        return plan_of(asked)
    for name in ("model", "devices"):
        if name in asked.model_fields_set:
            raise InputError(name, f"the plan file {plan_file} states it", "leave one of the two out")
    return adjusted(load_plan(plan_file), asked)


def print_run(run: Run, json: bool) -> None:
    """A run on stdout."""
    from simtool.outputs import benchmark_block, run_object
    from simtool.terminal import note, print_json, print_text

    if json:
        from simtool.json_text import json_text

        print_json(json_text(run_object(run)))
        return
    from simtool.report.sentence import overload
    from simtool.report.wording import devices_phrase, offload_phrase, plan_phrase

    print_text(f"{run.plan.model} on {devices_phrase(run.plan.cluster)}: {plan_phrase(run.plan)}.")
    print_text(benchmark_block(run.metrics, run.workload, run.slo))
    if run.result.offload is not None:
        note(offload_phrase(run.result.offload))
    if overloaded := overload(run.result):
        note(overloaded.strip())
    if run.metrics["failed"]:
        note(f"{run.metrics['failed']:,.0f} requests were refused: their KV cache can never fit")
