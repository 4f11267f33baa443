"""`simtool validate`: a measured run beside its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import ENGINE, QUESTION, WORKLOAD, Json, ScenarioFile, Settings, with_flags
from simtool.cli_simulate import ModelOption

if TYPE_CHECKING:
    from simtool.scenario import Scenario
    from simtool.validation import HostFit, PlanOrder, Validation

_OWN = tuple(flag for flag in QUESTION if flag.path not in ("objective", "slo", "prices", "slo.attainment"))
_LISTS = ("--measured", "--again")

PlanFiles = Annotated[list[Path] | None, typer.Argument(help="A plan.json; with --plans several.")]
Plans = Annotated[bool, typer.Option("--plans", help="Several plans: was their predicted order right?")]
Measured = Annotated[
    list[str] | None,
    typer.Option(
        "--measured",
        help="An execution's folder, or the result of vLLM, SGLang, TensorRT-LLM, GuideLLM or AIPerf; FILE#2 is its "
        "second run. Without it the plan is run on this machine.",
    ),
]
Again = Annotated[list[str] | None, typer.Option("--again", help="The same plan measured again: the noise.")]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Fit the host's terms on half of the steps, report on the other half.")
]
Objective = Annotated[
    str, typer.Option("--objective", help="With --plans: the metric's key, as mean_tpot_ms \\[output_throughput].")
]
Noise = Annotated[str, typer.Option("--noise", help="With --plans: measured differences below mean nothing, as 3%.")]
GateOption = Annotated[
    str, typer.Option("--gate", help="Exit with 1 where an error is above it and above 3 x the noise, as 25%.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Write validation.json and validation.html here.")]
Where = Annotated[str, typer.Option("--on", help="To run it here: cuda or cpu \\[the GPU where there is one].")]
Layers = Annotated[int, typer.Option("--layers", help="To run it here: layers of the model \\[all].", min=0)]


@with_flags(_OWN, WORKLOAD, ENGINE)
def validate(
    given: dict[str, Any],
    plan_files: PlanFiles = None,
    plans: Plans = False,
    measured: Measured = None,
    again: Again = None,
    calibrate: Calibrate = False,
    objective: Objective = "",
    noise: Noise = "",
    gate: GateOption = "",
    model: ModelOption = None,
    scenario: ScenarioFile = None,
    settings: Settings = None,
    on: Where = "",
    layers: Layers = 0,
    out: Out = None,
    json: Json = False,
) -> int:
    """Compare a measured run with its prediction: metrics, steps, and where the error comes from.

    Example: simtool validate plan.json --measured run/ --out report/
    """
    from simtool.calibration.validation.gates import FLOOR
    from simtool.cli_compile import announce_compilation
    from simtool.cli_options import asked_scenario
    from simtool.files import output_folder

    asked = asked_scenario(scenario, given, settings, model)
    _check_words(plans, objective=objective, noise=noise, here=(on, layers) if measured else ("", 0))
    files = _counted(plan_files or [], measured or [], again or [], plans=plans)
    floor = share_of(gate, "--gate") if gate else FLOOR
    announce_compilation()
    with output_folder(out) if out else nullcontext() as building:
        found = [_one(*paths, asked, calibrate=calibrate, request=(on, layers), floor=floor) for paths in files]
        if building:
            _write_profiles(found, building)
        if plans:
            order = _order(files, found, objective or "output_throughput", noise)
            return _told_order(order, found, building, json, gated=bool(gate))
        return _told(found[0], building, json, gated=bool(gate))


def join_words(arguments: Sequence[str]) -> list[str]:
    """`--plans a b --measured A B`: each word after --measured, up to the next option, gets that option of its own."""
    if "validate" not in arguments[:1] or "--plans" not in arguments:
        return list(arguments)
    joined: list[str] = []
    option = ""
    for word in arguments:
        if word.startswith("-"):
            option = word if word in _LISTS else ""
        elif option and joined[-1] != option:
            joined.append(option)
        joined.append(word)
    return joined


def share_of(text: str, name: str) -> float:
    """ "3%" as 0.03; "" as 0. Raises InputError."""
    from simtool.errors import InputError

    number = text.strip().removesuffix("%")
    try:
        value = float(number) / (100 if text.strip().endswith("%") else 1) if number else 0.0
    except ValueError:
        value = -1.0
    if not 0 <= value < 10:
        raise InputError(f"{name} {text}", "is no share", "for example 3% or 0.03")
    return value


def _counted(
    plan_files: Sequence[Path], measured: Sequence[str], again: Sequence[str], *, plans: bool
) -> list[tuple[Path | None, str, str]]:
    """(plan, measured, again) of each comparison; "" and None where there is none. Raises InputError."""
    from simtool.errors import InputError

    count = max(len(plan_files), len(measured), 1)
    if not plans and count > 1:
        raise InputError("validate", f"was given {count} plans or measurements", "--plans compares several")
    if plans and count < 2:
        raise InputError("--plans", "needs two plans or more", "give their files, or their --measured folders")
    for name, listed in (("plan files", plan_files), ("--measured", measured), ("--again", again)):
        if listed and len(listed) != count:
            raise InputError(name, f"has {len(listed)} entries for {count} plans", "give one a plan, in the same order")
    return [
        (
            plan_files[place] if plan_files else None,
            measured[place] if measured else "",
            again[place] if again else "",
        )
        for place in range(count)
    ]


def _one(
    plan_file: Path | None,
    measured: str,
    again: str,
    asked: Scenario,
    *,
    calibrate: bool,
    request: tuple[str, int],
    floor: float,
) -> Validation:
    """One plan against one measurement."""
    from simtool.calibration.validation.reading import read_measurement
    from simtool.calibration.validation.validate import plan_for, validate
    from simtool.cli_measured import check_used, executed_here, plan_asked, with_load, workload_asked
    from simtool.terminal import progress

    measurement = read_measurement(measured) if measured else executed_here(plan_file, asked, *request)
    if measured:
        check_used(plan_file, asked, measurement)
    plan = plan_for(measurement, plan_asked(plan_file, asked, measurement))
    workload = workload_asked(plan, asked, measurement)
    with progress("predicting"):
        return validate(
            plan,
            with_load(measurement, asked),
            workload,
            again=read_measurement(again) if again else None,
            calibrate=calibrate,
            floor=floor,
        )


def _check_words(plans: bool, *, objective: str, noise: str, here: tuple[str, int]) -> None:
    """Raise InputError for an option that does nothing. here: --on and --layers, where a run is given."""
    from simtool.errors import InputError

    several, ran = "is of --plans alone, which compares several plans", "is for a run here, and --measured has run"
    given: dict[str, tuple[object, str]] = {"--on": (here[0], ran), "--layers": (here[1], ran)}
    if not plans:
        given |= {"--objective": (objective, several), "--noise": (noise, several)}
    for name, (unused, why) in given.items():
        if unused:
            raise InputError(name, why, "leave it out")


def _write_profiles(found: Sequence[Validation], building: Path) -> None:
    """The own profile of each plan with the host times that were fitted, each under a name of its own."""
    from simtool.calibration.validation.executing import write_host_times
    from simtool.terminal import note

    for number, one in enumerate(found, 1):
        if one.host_fit is not None and one.plan.profiles:
            path = write_host_times(one.plan, one.host_fit, building, number if len(found) > 1 else 0)
            note(f"profile with these host times{f', plan {number}' if len(found) > 1 else ''}: {path.name}")


def _order(
    files: Sequence[tuple[Path | None, str, str]], found: list[Validation], metric: str, noise: str
) -> PlanOrder:
    from simtool.calibration.validation.order import plan_order
    from simtool.calibration.validation.validate import names_of

    names = names_of([plan or measured for plan, measured, _ in files])
    return plan_order(names, found, metric, share_of(noise, "--noise"))


def _told(found: Validation, building: Path | None, json: bool, *, gated: bool) -> int:
    """Write and print one validation; 1 where the schedule diverges or a gate that was asked for is not passed."""
    from simtool.json_text import json_text
    from simtool.terminal import note, print_json
    from simtool.validation_output import validation_object, write_validation

    if building:
        write_validation(found, building)
    if json:
        print_json(json_text(validation_object(found)))
    else:
        _print(found)
    for line in found.notes:
        note(line)
    return _exit_code([found], gated=gated)


def _exit_code(found: Sequence[Validation], *, gated: bool) -> int:
    """1 where a schedule diverges or a gate that was asked for is not passed."""
    return int(any(one.divergence or (gated and not all(gate.passed for gate in one.gates)) for one in found))


def _told_order(order: PlanOrder, found: list[Validation], building: Path | None, json: bool, *, gated: bool) -> int:
    """Write and print the order of plans, and what is to be said of each."""
    from simtool.json_text import json_text
    from simtool.report.validation_rows import ORDER_HEADS, order_rows, order_words
    from simtool.terminal import note, print_json, print_table, print_text
    from simtool.validation_output import order_object, write_order

    if building:
        write_order(order, found, building)
    if json:
        print_json(json_text(order_object(order, found)))
    else:
        print_text(order_words(order))
        print_table(ORDER_HEADS, order_rows(order))
    for name, one in zip(order.names, found, strict=True):
        if one.host_fit is not None and not json:
            print_text(f"{name}: {_host_told(one.host_fit)}")
        for line in (*([one.divergence] if one.divergence else []), *one.notes):
            note(f"{name}: {line}")
    return _exit_code(found, gated=gated)


def _print(found: Validation) -> None:
    from simtool.report.validation_rows import (
        METRIC_HEADS,
        STEP_HEADS,
        TERM_HEADS,
        gate_words,
        metric_rows,
        step_rows,
        term_rows,
    )
    from simtool.report.validation_sentence import blame, schedule_words, verdict
    from simtool.terminal import print_table, print_text

    print_text(" ".join(part for part in (verdict(found), schedule_words(found), blame(found)) if part))
    print_table(METRIC_HEADS, metric_rows(found))
    if found.steps is not None:
        print_table(STEP_HEADS, step_rows(found))
    if found.attribution is not None:
        print_table(TERM_HEADS, term_rows(found.attribution))
    if found.host_fit is not None:
        print_text(_host_told(found.host_fit))
    failed = [gate for gate in found.gates if not gate.passed]
    for gate in failed:
        print_text(gate_words(gate))


def _host_told(fit: HostFit) -> str:
    """The fitted host, and that it does not help where it does not."""
    from simtool.report.validation_rows import host_warning, host_words

    return " ".join(part for part in (host_words(fit), host_warning(fit)) if part)
