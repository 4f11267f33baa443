"""docs/emit.md: its commands run, and it names what exists."""

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from simtool.cli import run
from simtool.emit import Target
from simtool.emit.option_table import recorded_versions
from simtool.plan_file import plan_json
from tests.emit.plans import EXAMPLE

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "emit.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^simtool (emit .*)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text(plan_json(EXAMPLE), encoding="utf-8")
    (tmp_path / "azure_conv.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374,44\n2023-11-16 18:15:50,396,109\n",
        encoding="utf-8",
    )
    assert run(shlex.split(command)) == 0, capsys.readouterr().err


def test_targets_and_versions_are_named():
    assert [name for name in get_args(Target) if f"| `{name}` |" not in TEXT] == []
    for engine in ("vllm", "sglang", "sglang-router", "trtllm", "dynamo", "torchrun"):
        assert [version for version in recorded_versions(engine) if version not in TEXT] == []
