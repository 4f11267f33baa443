"""A plan emitted for torchrun runs there as it does here."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from simtool.calibration.executor.__main__ import main  # noqa: E402
from simtool.calibration.executor.execution_file import load_execution  # noqa: E402
from simtool.cli import run  # noqa: E402
from tests.hardware.own_profile import CPU_MACHINE, write_small  # noqa: E402

MODEL = "examples/small-dense/config.json"


def emitted(tmp_path, *flags):
    """The folder that `simtool emit --target torchrun` wrote for a plan of `flags`."""
    profile = write_small(tmp_path / "p.json", device="cpu-a", library="torch", dtype="fp32", machine=CPU_MACHINE)
    ask = ["--model", MODEL, "--devices", "2xcpu", "--kernel-library", "torch", "--profile", str(profile)]
    load = ["--num-prompts", "6", "--input-len", "24", "--output-len", "6"]
    assert run(["simulate", *ask, *load, *flags, "--out", str(tmp_path / "sim")]) == 0
    assert (
        run(
            ["emit", str(tmp_path / "sim" / "plan.json"), "--target", "torchrun", *load, "--out", str(tmp_path / "job")]
        )
        == 0
    )
    return tmp_path / "job"


def test_two_ranks_under_torchrun_give_the_tokens_of_one(tmp_path):
    job = emitted(tmp_path, "-tp", "2", "--max-num-seqs", "8", "--max-num-batched-tokens", "64")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path.cwd())}
    environment.pop("OMP_NUM_THREADS", None)  # the script sets it, else torchrun warns
    done = subprocess.run(
        ["bash", str(job / "launch.sh")], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert "OMP_NUM_THREADS" not in done.stderr
    assert "CUDA_VISIBLE_DEVICES" not in (job / "launch.sh").read_text(encoding="utf-8")
    two = load_execution(job / "run-0")
    plan = (job / "plan.json").read_text(encoding="utf-8").replace('"tp": 2', '"tp": 1')
    (job / "one.json").write_text(plan, encoding="utf-8")
    assert main([str(job / "one.json"), "--trace", str(job / "trace-0.jsonl"), "--out", str(job / "one")]) == 0
    one = load_execution(job / "one")
    assert [len(ids) for ids in one.tokens] == [6] * 6
    assert all(np.array_equal(a, b) for a, b in zip(one.tokens, two.tokens, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda job: (job / "plan.json").write_text("{", encoding="utf-8"), "plan.json"),
        (lambda job: (job / "trace-0.jsonl").write_text("", encoding="utf-8"), "empty"),
        (lambda job: (job / "trace-0.jsonl").unlink(), "trace-0.jsonl"),
    ],
)
def test_a_damaged_job_is_told(tmp_path, capsys, change, words):
    job = emitted(tmp_path)
    change(job)
    assert main([str(job / "plan.json"), "--trace", str(job / "trace-0.jsonl"), "--out", str(job / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (job / "out").exists()


def test_a_plan_without_kv_blocks_is_told(tmp_path, capsys):
    job = emitted(tmp_path)
    assert (
        main([str(tmp_path / "sim" / "plan.json"), "--trace", str(job / "trace-0.jsonl"), "--out", str(job / "o")]) == 2
    )
    assert "does not fix its KV blocks" in capsys.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_stopped_leaves_nothing(tmp_path, signum):
    job = emitted(tmp_path)
    before = sorted(path.name for path in job.iterdir())
    command = [sys.executable, "-m", "simtool.calibration.executor", str(job / "plan.json")]
    command += ["--trace", str(job / "trace-0.jsonl"), "--out", str(job / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path.cwd())
    deadline = time.monotonic() + 60
    while not list(job.glob(".simtool-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signum)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (128 + signum, "interrupted; nothing was written\n")
    assert sorted(path.name for path in job.iterdir()) == before
