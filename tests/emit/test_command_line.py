"""`simtool emit`: what is printed, what is written, and what is refused."""

import json
import os
import subprocess
import sys

import pytest

from simtool.cli import run
from simtool.emit import emission_text, emit
from simtool.emit.command import Command
from simtool.emit.emission import Request
from simtool.emit.engine_check import check_with_engine
from simtool.errors import InputError
from simtool.plan_file import plan_json
from tests.emit.plans import EXAMPLE, TWO_NODES


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(plan_json(EXAMPLE), encoding="utf-8")
    return path


def test_what_is_printed_is_one_runnable_script(plan_file, capsys, tmp_path):
    assert run(["emit", str(plan_file)]) == 0
    shown = capsys.readouterr()
    subprocess.run(["bash", "-n"], input=shown.out, text=True, check=True)
    fake = tmp_path / "bin"
    fake.mkdir()
    for name in ("vllm", "nginx"):
        (fake / name).write_text(
            '#!/bin/sh\necho "${0##*/} $CUDA_VISIBLE_DEVICES $*" >> started\nsleep 0.5\n', encoding="utf-8"
        )
        (fake / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{fake}:{os.environ['PATH']}"}
    subprocess.run(["bash"], input=shown.out, text=True, check=True, cwd=tmp_path, env=env, timeout=60)
    started = (tmp_path / "started").read_text(encoding="utf-8")
    assert started.count("serve meta-llama/Llama-3.1-8B") == 2
    assert "vllm 0,1 serve" in started
    assert "vllm 2,3 serve" in started
    assert (tmp_path / "nginx.conf").exists()


def test_files_are_written_whole_and_scripts_may_run(plan_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["emit", str(plan_file), "--num-prompts", "50", "--out", str(out)]) == 0
    assert capsys.readouterr().out == ""
    assert {path.name for path in out.iterdir()} == {"launch.sh", "nginx.conf", "benchmark.sh"}
    assert os.access(out / "launch.sh", os.X_OK)
    assert not os.access(out / "nginx.conf", os.X_OK)


def test_engine_flags_override_the_plans_knobs(plan_file, capsys):
    assert run(["emit", str(plan_file), "--replicas", "1", "--max-num-seqs", "7", "--kv-cache-dtype", "fp8"]) == 0
    shown = capsys.readouterr().out
    assert "--max-num-seqs 7" in shown
    assert "--kv-cache-dtype fp8" in shown


def test_json_has_the_files_and_the_version(plan_file, capsys):
    assert run(["emit", str(plan_file), "--target", "sglang", "--engine-version", "0.5.9", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["engine"], made["version"], list(made["files"])) == ("sglang", "0.5.9", ["launch.sh"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "tgi"], "is no target"),
        (["--engine-version", "1"], "no options of this version"),
        (["--kv-cache-dtype", "fp9"], "stores no fp9 KV cache"),
        (["--scheduling", "static"], "no static scheduling"),
        (["--num-prompts", "9", "--input-len", "uniform:5:9"], "give --out DIR"),
        (["--check-with-engine"], "is not installed beside simtool"),
        (["--model", "x"], "No such option"),
    ],
)
def test_bad_input_ends_with_2_and_says_why(plan_file, capsys, words, message):
    assert run(["emit", str(plan_file), *words]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


def test_a_damaged_plan_is_told(tmp_path, capsys):
    path = tmp_path / "plan.json"
    path.write_text(plan_json(EXAMPLE)[:200], encoding="utf-8")
    assert run(["emit", str(path)]) == 2
    assert "is not valid JSON" in capsys.readouterr().err
    assert run(["emit", str(tmp_path / "absent.json")]) == 2


def test_an_output_folder_that_cannot_be_written(plan_file, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(["emit", str(plan_file), "--out", str(tmp_path / "file" / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_yaml_targets_print_yaml_alone():
    text = emission_text(emit(EXAMPLE, Request(target="kubernetes")))
    assert text.startswith("# llama-3.1-8b on 8xh200, for Kubernetes")
    assert "launch-node-1.sh" in emission_text(emit(TWO_NODES, Request(target="vllm")))


def test_an_installed_engine_has_the_last_word(tmp_path):
    """A stand-in engine: its parser knows one option."""
    command = Command(program="sglang.launch_server", words=("python3",), options=(("--tp-size", ("2",)),))
    with pytest.raises(InputError, match="is not installed"):
        check_with_engine("sglang", command)
    args = tmp_path / "sglang" / "srt" / "server_args.py"
    args.parent.mkdir(parents=True)
    (tmp_path / "sglang" / "__init__.py").write_text('__version__ = "9"\n', encoding="utf-8")
    (tmp_path / "sglang" / "srt" / "__init__.py").touch()
    body = "    @staticmethod\n    def add_cli_args(parser):\n        parser.add_argument('--tp-size', type=int)\n"
    args.write_text(f"class ServerArgs:\n{body}", encoding="utf-8")
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n', encoding="utf-8")
    stand_in.chmod(0o755)
    verdict = check_with_engine("sglang", command, str(stand_in))
    assert (verdict.version, verdict.complaint) == ("9", "")
    unknown = Command(program="x", words=("python3",), options=(("--pp-size", ("2",)),))
    assert "--pp-size" in check_with_engine("sglang", unknown, str(stand_in)).complaint
