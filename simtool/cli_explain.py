"""`simtool explain`: where one step's time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import ENGINE, QUESTION, Json, ScenarioFile, Settings, with_flags
from simtool.cli_simulate import ModelOption, PlanFile

if TYPE_CHECKING:
    from simtool.simulator.explain import OperatorRow, StepExplanation

Batch = Annotated[
    str,
    typer.Option(
        "--batch", help="decode:64x2048, prefill:1x512@1024, or such terms joined by + (N x tokens @ cached)."
    ),
]
PoolNumber = Annotated[int, typer.Option("--pool", help="Which of the plan's pools.", min=0)]


@with_flags(QUESTION, ENGINE)
def explain(
    given: dict[str, Any],
    plan_file: PlanFile = None,
    batch: Batch = "decode:64x2048",
    pool: PoolNumber = 0,
    model: ModelOption = None,
    scenario: ScenarioFile = None,
    settings: Settings = None,
    json: Json = False,
) -> int:
    """Seconds, % of roofline and provenance of each operator of one step, with T_lower and T_upper.

    Example: simtool explain out/plan.json --batch decode:64x2048
    """
    from simtool.cli_options import asked_scenario
    from simtool.cli_simulate import plan_to_run
    from simtool.explaining import explain as explain_plan
    from simtool.explaining import unused_profiles
    from simtool.terminal import note, print_json

    plan = plan_to_run(plan_file, asked_scenario(scenario, given, settings, model))
    found = explain_plan(plan, batch, pool)
    if json:
        from simtool.json_text import json_text

        print_json(json_text(explanation_object(found)))
    else:
        _print(found)
    if any(not one.offload.off for one in plan.pools):
        note("experts are priced as if all were in HBM; `simtool offload walk` tells what offloading them costs")
    for line in unused_profiles(plan):
        note(line)
    return 0


def explanation_object(found: StepExplanation) -> dict[str, Any]:
    """The one object of `simtool explain --json`."""
    from simtool.json_text import plain

    both_ends: dict[str, Any] = {"t_lower_s": found.t_lower_s, "t_upper_s": found.t_upper_s}
    return {**plain(found), **both_ends, "batch": found.batch.text}


def _print(found: StepExplanation) -> None:
    from simtool.report.wording import duration
    from simtool.terminal import print_table, print_text

    stages = len({row.stage for row in found.rows}) > 1
    heads = ("operator", "calls", "time", "share", "of roofline", "TFLOP/s", "GB/s", "provenance")
    print_table(heads, [_row(row, stages) for row in found.rows])
    print_text(
        f"step of {found.batch.text}: {duration(found.seconds)} "
        f"(likely {duration(found.lower_s)} to {duration(found.upper_s)}), "
        f"{found.tokens:,} tokens computed as {found.padded_tokens:,}\n"
        f"host {duration(found.host_s)}, kernel launches without a graph {duration(found.launch_bound_s)}\n"
        f"at full rates: compute {duration(found.compute_s)}, memory {duration(found.memory_s)}, "
        f"links {duration(found.link_s)}\n"
        f"T_lower {duration(found.t_lower_s)} (all overlap), T_upper {duration(found.t_upper_s)} (none do), "
        "both at full rates and without the host\n"
        "prices from:\n" + "\n".join(f"  {source}" for source in dict.fromkeys(row.source for row in found.rows))
    )


def _row(row: OperatorRow, stages: bool) -> list[str]:
    from simtool.report.wording import duration, number

    moved = row.link_bytes_per_s if row.family == "collective" else row.hbm_bytes_per_s
    return [
        f"{row.name} [stage {row.stage}]" if stages else row.name,
        str(row.count),
        duration(row.seconds),
        f"{100 * row.share:.1f}%",
        f"{100 * row.roofline_share:.0f}%",
        number(row.flops_per_s / 1e12),
        number(moved / 1e9),
        row.provenance,
    ]
