"""`simtool trace`: inspect, convert and synthesise workloads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simtool.cli_options import WORKLOAD, Json, Settings, with_flags

app = typer.Typer(help="Inspect, convert and synthesise request traces.", no_args_is_help=True)

Source = Annotated[Path, typer.Argument(help="A trace file, plain or gzip.")]
Target = Annotated[Path, typer.Argument(help="The file to write: .jsonl (own, keeps everything) or .csv (Azure's).")]
Format = Annotated[str, typer.Option("--format", help="The input's format, where its content does not tell.")]
_NOT_SYNTHETIC = ("workload.trace", "workload.trace_format", "workload.time_scale", "workload.sample")


@app.command("inspect")
def inspect(source: Source, format: Format = "auto", json: Json = False) -> int:
    """Counts, rates, burstiness, length quantiles and prefix reuse of a trace."""
    from simtool.terminal import print_json, print_table
    from simtool.traces import inspect_workload, read_trace

    facts = inspect_workload(read_trace(source, format))
    if json:
        from simtool.json_text import json_text

        print_json(json_text(facts))
        return 0
    from simtool.cli_catalogue import _cell

    print_table(("key", "value"), [[key.replace("_", " "), _cell(value)] for key, value in facts.items()])
    return 0


@app.command("convert")
@with_flags(
    [
        flag
        for flag in WORKLOAD
        if flag.path
        in ("workload.num_prompts", "workload.request_rate", "workload.time_scale", "workload.sample", "workload.seed")
    ]
)
def convert(
    given: dict[str, Any], source: Source, target: Target, format: Format = "auto", settings: Settings = None
) -> int:
    """Rewrite a trace, thinned, cut or retimed on the way."""
    from simtool.asking import workload_of
    from simtool.cli_options import asked_scenario

    values = {**given, "workload.trace": str(source), "workload.trace_format": format}
    _write(workload_of(asked_scenario(None, values, settings).workload), target)
    return 0


@app.command("synth")
@with_flags([flag for flag in WORKLOAD if flag.path not in _NOT_SYNTHETIC])
def synth(given: dict[str, Any], target: Target, settings: Settings = None) -> int:
    """Make a trace from an arrival process and length distributions.

    Lengths: N, uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA, N*LOW..HIGH (as 1024*0.8..1), or empirical:FILE.
    """
    from simtool.asking import workload_of
    from simtool.cli_options import asked_scenario

    _write(workload_of(asked_scenario(None, given, settings).workload), target)
    return 0


def _write(workload: Any, target: Path) -> None:
    """Write by the target's suffix, and say what was written."""
    from simtool.azure_file import write_azure
    from simtool.terminal import note
    from simtool.traces import write_trace

    if target.name.endswith((".csv", ".csv.gz")):
        write_azure(workload, target)
    else:
        write_trace(workload, target)
    note(f"{workload.num_requests:,} requests written to {target}")
