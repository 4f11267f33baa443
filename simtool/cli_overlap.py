"""`simtool overlap`: what running kernels at once would save one step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_explain import Batch, PoolNumber
from simtool.cli_options import ENGINE, QUESTION, Json, ScenarioFile, Settings, with_flags
from simtool.cli_simulate import ModelOption, PlanFile

if TYPE_CHECKING:
    from simtool.plan import Plan
    from simtool.planners.schedule.step_plan import SolvedLayer, SolvedStep
    from simtool.simulator.overlap.step import OverlappedStep

_SOLVED = "solved"
Names = Annotated[
    list[str] | None, typer.Option("--overlap", help="Only these (repeat it); all stock overlaps by default.")
]
Solve = Annotated[bool, typer.Option("--solve", help="Also let a solver schedule the layers, with a bound.")]
Seconds = Annotated[float, typer.Option("--seconds", help="Of the solver, a kind of layer, on two cores.")]
ScheduleFile = Annotated[
    Path | None, typer.Option("--schedule", help="With --solve: write the solved schedule here, for simtool execute.")
]
Folder = Annotated[
    Path | None, typer.Option("--out", help="A folder for the best one's page and trace: step.html, step.json.")
]


@with_flags(QUESTION, [flag for flag in ENGINE if flag.path != "engine.overlap"])
def overlap(
    given: dict[str, Any],
    plan_file: PlanFile = None,
    batch: Batch = "decode:64x2048",
    pool: PoolNumber = 0,
    overlap: Names = None,
    solve: Solve = False,
    seconds: Seconds = 30.0,
    schedule: ScheduleFile = None,
    out: Folder = None,
    model: ModelOption = None,
    scenario: ScenarioFile = None,
    settings: Settings = None,
    json: Json = False,
) -> int:
    """Time of one step's layers with kernels side by side: nano-batches, chunks, fused collectives, KV transfer.

    Example: simtool overlap out/plan.json --batch prefill:2x1024
    """
    from simtool.cli_compile import announce_compilation
    from simtool.cli_options import asked_scenario
    from simtool.cli_simulate import plan_to_run
    from simtool.overlapping import check_schedule_output, check_seconds, compare_overlaps
    from simtool.overlaps import STOCK

    check_seconds(seconds)
    if schedule is not None:
        check_schedule_output(schedule, solve=solve)
    plan = plan_to_run(plan_file, asked_scenario(scenario, given, settings, model))
    announce_compilation(replica=False, tasks=True)
    found = compare_overlaps(plan, batch, pool, overlap or tuple(STOCK))
    solved = _solved(plan, batch, pool, seconds, schedule) if solve else None
    if solved is not None:
        found[_SOLVED] = solved.step
    if out is not None:
        _write(found, out, batch)
    if json:
        _print_json(found, solved)
        return 0
    _print(found, batch)
    if solved is not None:
        _print_solved(solved)
        _print_faster(found)
    return 0


def _solved(plan: Plan, batch: str, pool: int, seconds: float, schedule: Path | None) -> SolvedStep:
    """The step as the solver schedules it, written where it is to be."""
    from simtool.overlapping import solve_overlap, write_schedule

    solved = solve_overlap(plan, batch, pool, seconds)
    if schedule is not None:
        write_schedule(solved, plan, batch, pool, schedule)
    return solved


def _print_json(found: dict[str, OverlappedStep], solved: SolvedStep | None) -> None:
    from simtool.json_text import json_text
    from simtool.terminal import print_json

    rows = {name: overlap_object(step, solved if name == _SOLVED else None) for name, step in found.items()}
    print_json(json_text(rows))


def overlap_object(step: OverlappedStep, solved: SolvedStep | None = None) -> dict[str, Any]:
    """One overlap in `simtool overlap --json`, in seconds; the solved one with a row for each kind of layer."""
    found: dict[str, Any] = {
        "seconds": step.seconds,
        "serial_s": step.serial_s,
        "exposed_collectives_s": step.exposed_s,
        "exposed_kv_transfer_s": step.kv_exposed_s,
        "kv_transfer_bytes": step.kv_bytes,
        "t_lower_s": step.lower_s,
    }
    return found if solved is None else {**found, "layers": [_layer_object(layer) for layer in solved.layers]}


def _layer_object(layer: SolvedLayer) -> dict[str, Any]:
    return {
        "count": layer.time.kind.count,
        "overlaps": layer.overlaps,
        "nano_batches": layer.batches,
        "serial_s": layer.time.serial_s,
        "planned_s": layer.planned_s,
        "bound_s": layer.plan.certificate.bound,
        "gap": layer.gap,
        "simulated_s": layer.time.period_s,
    }


def _print(found: dict[str, OverlappedStep], batch: str) -> None:
    from simtool.report.wording import duration
    from simtool.terminal import print_table, print_text
    from simtool.units import MIB

    heads = ("overlap", "layers take", "against none", "collectives exposed", "KV sent", "KV exposed", "T_lower")
    base = found["none"].seconds
    print_table(
        heads,
        [
            [
                name,
                duration(step.seconds),
                f"{100 * (step.seconds / base - 1):+.1f}%",
                duration(step.exposed_s),
                f"{step.kv_bytes / MIB:.4g} MiB" if step.kv_bytes else "–",
                duration(step.kv_exposed_s) if step.kv_bytes else "–",
                duration(step.lower_s),
            ]
            for name, step in found.items()
        ],
    )
    best, senders = _fastest(found), [name for name, step in found.items() if step.kv_bytes]
    say = "no overlap is faster than one kernel after the other" if best == "none" else f"{best} is the fastest"
    if best in senders:
        say += " of those that send KV"
    if senders:
        print_text(
            f"{', '.join(senders)}: the step also sends the KV of its new tokens to a decode pool, which the others do "
            "not; against none is what that costs"
        )
    print_text(
        f"step of {batch}: {say}\n"
        "embedding, head, host and the gaps between steps are left out: nothing of them overlaps\n"
        "kernels alone as priced, side by side as simulated: nothing here was measured side by side"
    )


def _fastest(found: dict[str, OverlappedStep]) -> str:
    """Among rows that do the same work: of those that send KV where no other was asked for."""
    asked = [name for name in found if name != "none"]
    senders = [name for name in asked if found[name].kv_bytes]
    alike = senders if senders and senders == asked else [name for name in found if name not in senders]
    return min(alike, key=lambda name: found[name].seconds)


def _print_solved(solved: SolvedStep) -> None:
    """A row for each kind of layer: what was planned, what is left to gain, and what the simulation says."""
    from simtool.report.wording import duration
    from simtool.terminal import print_table, print_text

    rows = []
    for layer in solved.layers:
        many = f"{layer.batches} nano-batch" + ("es" if layer.batches > 1 else "")
        rows.append(
            [
                f"{layer.time.kind.count} layers",
                many if layer.overlaps else "do not overlap",
                duration(layer.time.serial_s),
                duration(layer.planned_s),
                duration(layer.plan.certificate.bound),
                f"{100 * layer.gap:.1f}%",
                duration(layer.time.period_s),
            ]
        )
    print_table(("solved, a layer", "answer", "none", "planned", "bound", "gap", "simulated"), rows)
    print_text(
        "planned and bound: pieces with fixed shares of the device; simulated: the same order and streams, kernels\n"
        "competing for what they share, which may be slower or faster"
    )


def _print_faster(found: dict[str, OverlappedStep]) -> None:
    """Which stock overlaps beat the solved schedule, and why they can."""
    from simtool.report.wording import duration
    from simtool.terminal import print_text

    solved = found[_SOLVED]
    faster = {
        name: step
        for name, step in found.items()
        if step.seconds < solved.seconds and bool(step.kv_bytes) == bool(solved.kv_bytes)
    }
    if not faster:
        print_text("no other overlap of the table is faster than the solved schedule")
        return
    named = ", ".join(f"{name} ({duration(step.seconds)})" for name, step in faster.items())
    print_text(
        f"faster than the solved schedule ({duration(solved.seconds)}): {named}\n"
        "a solver places whole kernels of equal nano-batches: it cuts no kernel's tiles, sends from inside none,\n"
        "and its bound is no bound on overlaps that do"
    )


def _write(found: dict[str, OverlappedStep], out: Path, batch: str) -> None:
    """The page and the trace of the fastest, of the kind of layer that there are most of."""
    from simtool.files import output_folder
    from simtool.report.step_page import write_step_page
    from simtool.step_trace import write_step_trace

    name = _fastest(found)
    layers = max(found[name].layers, key=lambda time: time.kind.count)
    with output_folder(out) as building:
        write_step_page(layers.timeline, building / "step.html", f"{batch}, {name}")
        write_step_trace(layers.timeline, building / "step.json")
