"""`simtool sweep`: one plan under a range of one value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import ENGINE, QUESTION, WORKLOAD, Json, ScenarioFile, Settings, with_flags
from simtool.cli_simulate import ModelOption, PlanFile

if TYPE_CHECKING:
    from simtool.metrics import Slo

Over = Annotated[
    str | None,
    typer.Option("--over", help="Scenario key and values: workload.request_rate=1,2,4 or engine.max_num_seqs=64,256."),
]
OutFile = Annotated[Path | None, typer.Option("--out", help="Write the rows to this .csv or .json file.")]
_SHOWN = (
    ("request_throughput", "requests/s"),
    ("output_throughput", "output tok/s"),
    ("mean_ttft_ms", "mean TTFT ms"),
    ("p99_ttft_ms", "p99 TTFT ms"),
    ("mean_tpot_ms", "mean TPOT ms"),
    ("p99_tpot_ms", "p99 TPOT ms"),
)
_SWEEPABLE = {"--request-rate": "workload.request_rate", "--max-concurrency": "workload.max_concurrency"}
_KINDS = {"workload.request_rate": str, "workload.max_concurrency": str}


def _swept_flags() -> tuple[Any, ...]:
    """The workload's flags; those two that are usually swept take a comma list."""
    from dataclasses import replace

    return tuple(replace(flag, kind=_KINDS.get(flag.path, flag.kind)) for flag in WORKLOAD)


@with_flags(QUESTION, _swept_flags(), ENGINE)
def sweep(
    given: dict[str, Any],
    plan_file: PlanFile = None,
    model: ModelOption = None,
    scenario: ScenarioFile = None,
    settings: Settings = None,
    over: Over = None,
    out: OutFile = None,
    json: Json = False,
) -> int:
    """Simulate a plan at each value of a list: --request-rate 1,2,4, --max-concurrency 8,16,32 or --over KEY=VALUES.

    Example: simtool sweep out/plan.json --request-rate 1,2,4,8 --input-len 1024 --output-len 128
    """
    from contextlib import nullcontext

    from simtool.files import output_file
    from simtool.terminal import print_json

    key, values = _swept(given, over)
    with output_file(out) if out else nullcontext() as building:
        rows = _rows(key, values, given, plan_file, model, scenario, settings)
        if building:
            _write(rows, building)
    if json:
        from simtool.json_text import json_text

        print_json(json_text(rows))
    else:
        _print(key, rows)
    return 0


def _swept(given: dict[str, Any], over: str | None) -> tuple[str, list[str]]:
    """The key that is swept, and its values; taken out of `given`."""
    from simtool.errors import InputError

    lists = {key: str(given[key]) for key in _KINDS if "," in str(given.get(key, ""))}
    if over:
        key, equals, text = over.partition("=")
        if not equals:
            raise InputError(over, "is not KEY=VALUES", "for example --over workload.request_rate=1,2,4")
        lists[key] = text
    if len(lists) != 1:
        hint = "give one comma list: --request-rate 1,2,4, --max-concurrency 8,16 or --over KEY=VALUES"
        raise InputError("sweep", f"{len(lists)} values to sweep over, and one is wanted", hint)
    ((key, text),) = lists.items()
    given.pop(key, None)
    values = [value.strip() for value in text.split(",") if value.strip()]
    if not values:
        raise InputError(key, "has no values", "give a comma list")
    return key, values


def _rows(
    key: str,
    values: list[str],
    given: dict[str, Any],
    plan_file: Path | None,
    model: str | None,
    scenario: Path | None,
    settings: list[str] | None,
) -> list[dict[str, Any]]:
    """One row a value: the value, whether the SLO is met, and every metric."""
    from simtool.asking import slo_of, workload_for
    from simtool.cli_compile import announce_compilation
    from simtool.cli_options import asked_scenario
    from simtool.cli_simulate import plan_to_run
    from simtool.explaining import unused_profiles
    from simtool.outputs import limited, missed
    from simtool.run import run_plan
    from simtool.terminal import note, progress

    asked = [asked_scenario(scenario, given, [*(settings or []), f"{key}={value}"], model) for value in values]
    rows, notes = [], dict[str, None]()
    announce_compilation()
    with progress("sweeping") as say:
        for value, one in zip(values, asked, strict=True):
            say(f"{key} = {value}")
            plan = plan_to_run(plan_file, one)
            slo: Slo = slo_of(one)
            run = run_plan(plan, workload_for(plan, one), slo)
            met = None if not limited(slo) else not missed(run.result, slo)
            rows.append({key: _number(value), "meets_slo": met, **run.metrics})
            notes |= dict.fromkeys(unused_profiles(plan))
    for line in notes:
        note(line)
    return rows


def _print(key: str, rows: list[dict[str, Any]]) -> None:
    from simtool.report.wording import number
    from simtool.terminal import print_table

    with_slo = any(row["meets_slo"] is not None for row in rows)
    heads = [key.rpartition(".")[2], *(head for _, head in _SHOWN), *(["SLO"] if with_slo else [])]
    cells = []
    for row in rows:
        met = {None: "", True: "met", False: "missed"}[row["meets_slo"]]
        numbers = [number(row[name], 4) for name, _ in _SHOWN]
        cells.append([str(row[key]), *numbers, *([f"{met} {100 * row['slo_attainment']:.1f}%"] if with_slo else [])])
    print_table(heads, cells)


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    """The rows as .json, or else as CSV."""
    if path.suffix == ".json":
        from simtool.json_text import json_text

        path.write_text(json_text(rows), encoding="utf-8")
        return
    import csv

    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _number(text: str) -> float | int | str:
    """The swept value as it should stand in a table."""
    try:
        value = float(text)
    except ValueError:
        return text
    return int(value) if value.is_integer() else value
