"""`simtool plan`: find the best plan, and say how good any other could be."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import ENGINE, QUESTION, WORKLOAD, Json, Model, Out, ScenarioFile, Settings, with_flags

if TYPE_CHECKING:
    from simtool.planners.question import Answer
    from simtool.scenario import Scenario

Pareto = Annotated[str | None, typer.Option("--pareto", help="Two objectives A,B: the front between them.")]
Capacity = Annotated[bool, typer.Option("--capacity", help="The highest request rate that still meets the SLO.")]


@with_flags(QUESTION, WORKLOAD, ENGINE)
def plan(
    given: dict[str, Any],
    model: Model = None,
    scenario: ScenarioFile = None,
    settings: Settings = None,
    out: Out = None,
    json: Json = False,
    pareto: Pareto = None,
    capacity: Capacity = False,
) -> int:
    """Find the best plan for a model, devices and a workload, with a certificate.

    Example: simtool plan llama-3.1-70b --devices 8xh200 --trace azure.csv --slo ttft:1000,tpot:50 --out out/
    """
    from simtool.cli_options import asked_scenario
    from simtool.files import output_folder

    asked = asked_scenario(scenario, given, settings, model)
    if pareto:
        from simtool.cli_front import front

        return front(asked, pareto, json)
    if capacity:
        from simtool.cli_front import capacity as find_capacity

        answer = _answer(asked, json)
        code = find_capacity(asked, answer, json)
        _tell_unused(answer)
        return code
    with output_folder(out) if out else nullcontext() as building:
        answer = _answer(asked, json)
        if building:
            from simtool.outputs import write_answer
            from simtool.terminal import progress

            with progress("writing the report"):
                write_answer(answer, building)
    _print(answer, json)
    _tell_unused(answer)
    return 1 if answer.best.meets_slo is False else 0


def _tell_unused(answer: Answer) -> None:
    """A note for each profile that the user gave and that prices nothing."""
    from simtool.explaining import unused_profiles
    from simtool.terminal import note

    for line in unused_profiles(answer.best.plan):
        note(line)


def _answer(asked: Scenario, json: bool) -> Answer:
    """Ask the planner. An infeasible question is told as JSON too where JSON was asked for."""
    from simtool.asking import question_of
    from simtool.choosing import choose
    from simtool.cli_compile import announce_compilation
    from simtool.errors import InfeasibleError
    from simtool.terminal import print_json, progress

    question = question_of(asked)
    space = question.space
    announce_compilation(
        tasks=any(not overlap.off for overlap in space.overlap),
        offload=space.offload_auto or any(not offload.off for offload in space.offload),
    )
    try:
        with progress("searching") as say:
            return choose(question, say)
    except InfeasibleError as error:
        if json:
            from simtool.json_text import json_text
            from simtool.outputs import infeasible_object

            print_json(json_text(infeasible_object(error)))
        raise


def _print(answer: Answer, json: bool) -> None:
    """The answer on stdout."""
    from simtool.terminal import print_json, print_table, print_text

    if json:
        from simtool.json_text import json_text
        from simtool.outputs import answer_object

        print_json(json_text(answer_object(answer)))
        return
    from simtool.outputs import benchmark_block
    from simtool.report.ranking import plan_rows
    from simtool.report.sentence import plain_lead, plain_sentence

    heads, rows, _ = plan_rows(answer, limit=8)
    print_text(f"{plain_sentence(answer)}\n{plain_lead(answer)}")
    print_table(heads, rows)
    print_text(benchmark_block(answer.best.metrics or {}, answer.question.workload, answer.question.slo))
