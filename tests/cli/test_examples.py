"""Examples print what was recorded, and the example trace is what its command makes."""

import subprocess
import sys
from pathlib import Path

import pytest

from simtool.cli import run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_prints_what_was_recorded(script):
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == script.with_suffix(".out").read_text(encoding="utf-8")


def test_the_example_trace_is_what_its_command_makes(tmp_path):
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    command = text.split("simtool trace synth ")[1].split("\n```")[0].replace("\\\n", " ").split()
    made = tmp_path / "trace.csv"
    assert run(["trace", "synth", str(made), *command[1:]]) == 0
    assert made.read_bytes() == (EXAMPLES / "traces" / "chat_azure.csv").read_bytes()


def test_the_example_scenario_is_sound():
    from simtool.asking import question_of
    from simtool.scenario import load_scenario

    question = question_of(load_scenario(EXAMPLES / "chat.toml"))
    assert question.workload.num_requests == 600
    assert (question.slo.ttft_s, question.slo.tpot_s) == (1.0, 0.05)
