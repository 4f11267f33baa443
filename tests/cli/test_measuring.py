"""simtool calibrate measures: kernels of this CPU, for the time it is given."""

import signal
import subprocess
import sys
import time

import pytest

from simtool.cli import run

pytest.importorskip("torch", reason="measuring needs torch")


def test_measuring_a_little_then_going_on_then_fitting_again(tmp_path):
    flags = ["--device", "cpu", "--families", "elementwise", "--out", str(tmp_path)]
    assert run(["calibrate", "--budget", "12s", *flags]) == 0
    before = (tmp_path / "points.jsonl").read_text().splitlines()
    assert run(["calibrate", "--budget", "15s", *flags]) == 0
    after = (tmp_path / "points.jsonl").read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert run(["calibrate", "--budget", "15s", *flags, "--seed", "3"]) == 2
    assert (tmp_path / "points.jsonl").read_text().splitlines() == after


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    code = "from simtool.cli import main; main()"
    flags = ["--device", "cpu", "--families", "elementwise", "--budget", "120s", "--out", str(tmp_path)]
    child = subprocess.Popen([sys.executable, "-c", code, "calibrate", *flags], stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "points.jsonl"
    while child.poll() is None and not (journal.exists() and len(journal.read_text().splitlines()) > 5):
        time.sleep(0.05)  # the other core may be another worker's
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in told
    assert not list(tmp_path.glob("cpu*.json"))
    assert len(journal.read_text().splitlines()) > 5
