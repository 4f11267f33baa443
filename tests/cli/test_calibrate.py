"""simtool calibrate: fit, import and report from the command line, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simtool.calibration.points import JournalHeader, KernelPoint, Skipped, TimedPoint, Timing
from simtool.calibration.points_file import JournalWriter, start_journal
from simtool.cli import run
from tests.cli.test_bad_input import refuse
from tests.hardware.own_profile import rows, write_small

NCCL = """# nThread 1 nGpus 8 minBytes 1024 maxBytes 1048576 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1
# Using devices
"""
NCCL += "".join(f"#  Rank  {n} Group  0 Pid  7 on node device  {n} [0x{n}b] NVIDIA H200\n" for n in range(8))
NCCL += """#
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""


def nccl_text(sizes=tuple(2**power for power in range(10, 25))):
    lines = []
    for size in sizes:
        micro = 12.0 + size / 200e9 * 1e6
        rate = size / micro / 1e3
        half = f"{micro:8.2f} {rate:7.2f} {rate * 1.75:7.2f}      0"
        lines.append(f"{size:12d} {size // 4:12d}     float     sum      -1 {half} {half}")
    return NCCL + "\n".join(lines) + "\n"


def write_journal(path: Path, seconds_of=lambda t: t, count: int = 99) -> Path:
    """A journal of the made-up device's GEMMs, as the profiling side writes it."""
    header = JournalHeader(device="h200", library="torch", version="2.13.0", seed=5, request={}, machine={})
    table = rows("gemm", "bf16", 1.0)
    writer = JournalWriter(start_journal(path, header))
    with writer:
        for index in range(min(count, len(table.seconds))):
            dims = {name: float(column[index]) for name, column in table.dims.items()}
            point = KernelPoint(family="gemm", dtype="bf16", kernel="mm", dims=dims)
            timing = Timing(seconds=float(seconds_of(table.seconds[index])), spread=0.01, repeats=9)
            writer.append(TimedPoint(point=point, timing=timing), at_s=float(index))
        writer.append(Skipped(subject="gemm fp8", reason="no fp8 here"), at_s=100.0)
    return path


def test_fit_makes_a_profile_that_prices(capsys, tmp_path):
    journal = write_journal(tmp_path / "points.jsonl")
    assert run(["calibrate", "fit", str(journal), "--out", str(tmp_path / "out"), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["profiles"]
    assert (told["device"], told["library"], told["version"]) == ("h200", "torch", "2.13.0")
    (fit,) = told["fits"]
    assert fit["family"] == "gemm"
    assert fit["held_out_median"] < 0.05
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["calibration.html", "h200__torch__2.13.0.json"]
    ask = ["explain", "--model", "llama-3.1-8b", "--devices", "1xh200", "--kernel-library", "torch", "--json"]
    assert run([*ask, "--profile", told["path"]]) == 0
    assert f"h200/torch/gemm/bf16 [{told['path']}]" in capsys.readouterr().out


def test_fit_prints_a_table(capsys, tmp_path):
    journal = write_journal(tmp_path / "points.jsonl")
    assert run(["calibrate", "fit", str(journal), "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "held out" in told.out
    assert "90% covers" in told.out
    assert "h200__torch__2.13.0.json written" in told.err


def test_two_fits_of_one_journal_are_the_same_file(capsys, tmp_path):
    journal = write_journal(tmp_path / "points.jsonl")
    for name in "ab":
        assert run(["calibrate", "fit", str(journal), "--out", str(tmp_path / name)]) == 0
    first, second = (tmp_path / name / "h200__torch__2.13.0.json" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    pages = [(tmp_path / name / "calibration.html").read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


def test_a_cut_journal_is_fitted_and_said(capsys, tmp_path):
    journal = write_journal(tmp_path / "points.jsonl")
    journal.write_bytes(journal.read_bytes()[:-20])
    assert run(["calibrate", "fit", str(journal), "--out", str(tmp_path / "out")]) == 0
    assert "the last line was cut" in capsys.readouterr().err


def test_import_of_nccl_tests(capsys, tmp_path):
    text = tmp_path / "all_reduce_perf.txt"
    text.write_text(nccl_text())
    assert run(["calibrate", "import", "nccl-tests", str(text), "--device", "h200", "--out", str(tmp_path / "o")]) == 0
    assert "all_reduce" in capsys.readouterr().out
    assert (tmp_path / "o" / "calibration.html").exists()


def test_report_draws_profiles_again(capsys, tmp_path):
    profile = write_small(tmp_path / "p.json", families=("gemm", "elementwise"))
    assert run(["calibrate", "report", str(profile), "--out", str(tmp_path / "page.html")]) == 0
    assert "page.html written" in capsys.readouterr().err
    assert b"<html" in (tmp_path / "page.html").read_bytes()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--budget", "soon"], "budget"),
        (["--budget", "0"], "budget"),
        (["--budget", "nan"], "budget"),
        (["--device", "tpu"], "tpu"),
        (["--models", "lama-3"], "lama-3"),
        (["--models", "absent/config.json"], "absent"),
        (["-tp", "0"], "tensor-parallel"),
        (["-tp", "two"], "two"),
        (["--dtypes", "bf15"], "bf15"),
        (["--families", "gem"], "gem"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_a_bad_request_is_named_and_writes_nothing(capsys, tmp_path, flags, words):
    assert words in refuse(capsys, "calibrate", *flags, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "absent.jsonl"], "absent.jsonl"),
        (["import", "vidr", "."], "vidr"),
        (["import", "vidur", "absent"], "absent"),
        (["import", "kineto", "absent.json"], "absent.json"),
        (["report", "absent.json"], "absent.json"),
        (["report"], "profiles"),
        (["measure"], "No such command"),
    ],
)
def test_what_is_not_there_is_named(capsys, tmp_path, arguments, words):
    out = ["--out", tmp_path / "out"] if arguments[0] in ("fit", "import") else []
    assert words in refuse(capsys, "calibrate", *arguments, *out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "line 1"), ("{}\n", "line 1"), ("not json\n", "line 1"), ("[" * 100_000 + "\n", "line 1")],
)
def test_a_journal_that_is_none(capsys, tmp_path, text, words):
    journal = tmp_path / "points.jsonl"
    journal.write_text(text)
    assert words in refuse(capsys, "calibrate", "fit", journal, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_line_inside_a_journal_is_named(capsys, tmp_path):
    journal = write_journal(tmp_path / "points.jsonl")
    lines = journal.read_text().splitlines()
    for damage in (lines[4][:-10], lines[4].replace('"seconds":', '"seconds":-'), lines[4].replace("bf16", "bf17")):
        journal.write_text("\n".join([*lines[:4], damage, *lines[5:]]) + "\n")
        assert "line 5" in refuse(capsys, "calibrate", "fit", journal, "--out", tmp_path / "out")


def test_a_journal_without_points_fits_nothing(capsys, tmp_path):
    journal = write_journal(tmp_path / "points.jsonl", count=3)
    assert run(["calibrate", "fit", str(journal), "--out", str(tmp_path / "out")]) == 2
    assert "too few points" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_profile_is_not_drawn(capsys, tmp_path):
    profile = write_small(tmp_path / "p.json")
    profile.write_text(profile.read_text().replace("made up", "made UP"))
    assert "checksum" in refuse(capsys, "calibrate", "report", profile, "--out", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_folder_in_the_way(capsys, tmp_path):
    journal = write_journal(tmp_path / "points.jsonl")
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in refuse(capsys, "calibrate", "fit", journal, "--out", tmp_path / "file" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(capsys, tmp_path):
    journal = write_journal(tmp_path / "points.jsonl")
    (tmp_path / "ro").mkdir(mode=0o500)
    assert "cannot be written" in refuse(capsys, "calibrate", "fit", journal, "--out", tmp_path / "ro" / "out")


def test_without_torch_the_hint_says_how_to_go_on(tmp_path):
    code = "import sys\nsys.modules['torch'] = None\nfrom simtool.cli import main; main()"
    command = [sys.executable, "-c", code, "calibrate", "--out", str(tmp_path / "out")]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 2
    assert "llm-simtool[gpu]" in " ".join(told.stderr.split())
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "out").exists()
