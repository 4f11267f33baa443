"""The command line: parse, call one public function, print.

Exit codes: 0 answered, 1 infeasible, a missed SLO or gate, or a process that died, 2 bad input, 130 interrupted,
143 terminated.

Commands import what they need when they run, so that `simtool --help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from simtool import (
    cli_calibrate,
    cli_catalogue,
    cli_compile,
    cli_emit,
    cli_execute,
    cli_experts,
    cli_explain,
    cli_offload,
    cli_overlap,
    cli_plan,
    cli_rebalance,
    cli_routing,
    cli_simulate,
    cli_sweep,
    cli_trace,
    cli_validate,
)
from simtool.cli_options import join_slo_words
from simtool.errors import InputError, SimtoolError
from simtool.stopping import INTERRUPTED, stoppable
from simtool.terminal import note, print_error, print_text

# click's own tree of "the command was typed wrong"; typer keeps its copy of click private
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
_BAD_INPUT, _FAILED = 2, 1

app = typer.Typer(
    name="simtool",
    help="Predict what an LLM inference workload costs on given hardware, and find the best plan for it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("plan")(cli_plan.plan)
app.command("simulate")(cli_simulate.simulate)
app.command("sweep")(cli_sweep.sweep)
app.command("explain")(cli_explain.explain)
app.command("overlap")(cli_overlap.overlap)
app.command("execute")(cli_execute.execute)
app.command("validate")(cli_validate.validate)
app.command("emit")(cli_emit.emit)
cli_experts.app.command("rebalance")(cli_rebalance.rebalance)
app.add_typer(cli_experts.app, name="experts")
app.add_typer(cli_offload.app, name="offload")
app.add_typer(cli_trace.app, name="trace")
app.add_typer(cli_routing.app, name="routing")
app.add_typer(cli_calibrate.app, name="calibrate")
app.command("models")(cli_catalogue.models)
app.command("hardware")(cli_catalogue.hardware)
app.command("compile")(cli_compile.compile_command)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Predict what an LLM inference workload costs on given hardware, and find the best plan for it."""
    if version:
        from importlib.metadata import version as installed

        print_text(f"simtool {installed('llm-simtool')}")
        raise typer.Exit


def main() -> None:
    """The `simtool` program."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed by the caller (`>&-`)
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.exit(stoppable(lambda: run(sys.argv[1:])))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. The one place where errors become text."""
    try:
        code = app(args=cli_validate.join_words(join_slo_words(arguments)), prog_name="simtool", standalone_mode=False)
        if code == INTERRUPTED:  # typer turns Ctrl-C into this exit code
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SimtoolError as error:
        print_error(error)
        return _BAD_INPUT if isinstance(error, InputError) else _FAILED
    except _UsageError as error:
        return _usage_error(error)
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        note("interrupted; nothing was written")
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # stdout's reader has gone, as with `| head`; typer exits where it sees that
        _drop_output()
        return 0
    except OSError as error:  # a full disk, also behind stdout
        _drop_output()
        print_error(InputError("output", f"cannot be written: {error.strerror or error}", "is the disk full?"))
        return _BAD_INPUT


def _usage_error(error: Exception) -> int:
    """A mistyped command; without any argument the help is the answer."""
    message = str(getattr(error, "format_message", lambda: error)())
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "simtool"
    if message.strip():
        print_error(InputError(command, message.strip().rstrip("."), f"see {command} --help"))
    return _BAD_INPUT


def _drop_output() -> None:
    """Send what stdout still holds nowhere, so that Python's own flush at exit does not fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
