"""--check-with-engine: the emitted options fed to the parser of the engine that is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from simtool.emit.command import Command, Variable
from simtool.emit.emission import Request, engine_of
from simtool.emit.option_table import load_table
from simtool.emit.placement import FIRST_PORT
from simtool.emit.serving import serving_commands
from simtool.emit.subject import subject_of
from simtool.errors import InputError
from simtool.plan import Plan

_TIMEOUT_S = 300
_VLLM = """
import json, sys
import vllm
from vllm.utils.argparse_utils import FlexibleArgumentParser
try:
    from vllm.entrypoints.common.cli_args import make_arg_parser
except ImportError:
    from vllm.entrypoints.openai.cli_args import make_arg_parser
make_arg_parser(FlexibleArgumentParser()).parse_args(json.loads(sys.argv[1]))
print("version", vllm.__version__)
"""
_SGLANG = """
import argparse, json, sys
import sglang
from sglang.srt.server_args import ServerArgs
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
parser.parse_args(json.loads(sys.argv[1]))
print("version", sglang.__version__)
"""
_PROBES = {"vllm": _VLLM, "sglang": _SGLANG}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineVerdict:
    """The version that is installed, and what its parser said ("": it took everything)."""

    version: str
    complaint: str


def check_plan_with_engine(plan: Plan, request: Request) -> tuple[EngineVerdict, ...]:
    """What the installed engine says of each pool's options. Raises InputError where it is not installed."""
    table = load_table(*engine_of(request))
    subject = subject_of(plan, model_path=request.model_path, served_name=request.served_name)
    verdicts = []
    for pool in plan.pools:
        (command,) = serving_commands(subject, pool, table, port=FIRST_PORT, config="config.yaml")
        verdicts.append(check_with_engine(table.engine, command))
    return tuple(verdicts)


def check_with_engine(engine: str, command: Command, python: str = sys.executable) -> EngineVerdict:
    """What the engine's own parser says of the command. Raises InputError where the engine is not installed."""
    if engine not in _PROBES:
        raise InputError(engine, "has no parser that runs without a GPU", "--check-with-engine knows vllm and sglang")
    arguments = [
        "0" if isinstance(word, Variable) else word for name, values in command.options for word in (name, *values)
    ]
    if engine == "vllm":
        arguments = [command.words[2], *arguments]
    try:
        done = subprocess.run(
            [python, "-c", _PROBES[engine], json.dumps(arguments)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(engine, f"its parser could not be run: {error}", "leave --check-with-engine out") from error
    if f"No module named '{engine}'" in done.stderr:
        rule = "is not installed beside simtool, so its parser cannot be asked"
        raise InputError(engine, rule, "leave --check-with-engine out: the recorded options were checked")
    version = next((line.split()[1] for line in done.stdout.splitlines() if line.startswith("version ")), "")
    complaint = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    return EngineVerdict(version=version, complaint=complaint)
