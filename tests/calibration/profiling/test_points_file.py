"""The points journal: what is written is read back, a cut last line is dropped, any other damage names its line."""

import json

import numpy as np
import pytest

from simtool.calibration.measured_set import Contention, HostTime
from simtool.calibration.points import (
    JournalHeader,
    KernelPoint,
    Sentinel,
    Skipped,
    TimedCollective,
    TimedCopy,
    TimedPoint,
    Timing,
)
from simtool.calibration.points_file import JournalWriter, measured_set, read_journal, start_journal
from simtool.errors import InputError

HEADER = JournalHeader(
    device="h200",
    library="torch",
    version="2.13.0",
    seed=7,
    request={"models": "llama-3.1-8b"},
    machine={"date": "2026-01-01", "threads": 1.0},
)
TIMING = Timing(seconds=1.5e-4, spread=0.02, repeats=9)
GQA = {"heads": 4.0, "kv_heads": 1.0, "head_dim": 128.0, "window": 0.0}


def point(family, kernel, **dims):
    return TimedPoint(
        point=KernelPoint(family=family, dtype="bf16", kernel=kernel, dims={k: float(v) for k, v in dims.items()}),
        timing=TIMING,
    )


MOE = {"tokens": 5, "hidden": 64, "inter": 32, "top_k": 2, "num_experts": 8, "moe_tp": 1, "moe_ep": 1, "matrices": 3}
ROWS = [
    Sentinel(seconds=1e-3),
    point("gemm", "mm", m=3, n=64, k=32),
    point("attention_decode", "sdpa:equal", batch=2, kv_len=64, **GQA),
    point("attention_decode", "sdpa:skewed", batch=2, kv_len=64, kv_max=100, **GQA),
    point("moe", "loop:power_law_1.01", **MOE),
    point("moe", "loop:balanced", **MOE),
    TimedCopy(name="hbm", size_bytes=2048.0, timing=TIMING),
    TimedCopy(name="hbm", size_bytes=1024.0, timing=TIMING),
    TimedCollective(name="all_reduce", library="gloo", ranks=2, size_bytes=1024.0, timing=TIMING),
    Contention(
        first="gemm",
        second="hbm_copy",
        first_alone_s=1.0,
        second_alone_s=1.0,
        first_together_s=1.5,
        second_together_s=2.0,
    ),
    HostTime(name="eager_launch", seconds=1e-6, spread=0.1),
    HostTime(name="gap", seconds=0.0, spread=0.0),
    Skipped(subject="gemm/fp8", reason="no fp8 here"),
    Sentinel(seconds=1.1e-3),
]


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "points.jsonl"
    with JournalWriter(start_journal(path, HEADER)) as writer:
        for number, row in enumerate(ROWS):
            writer.append(row, 0.5 * number)
    return path


def damaged(path, number, change):
    """The journal with line `number` (from 1) put through `change`."""
    lines = path.read_text().splitlines()
    lines[number - 1] = change(lines[number - 1])
    path.write_text("\n".join(lines) + "\n")
    return path


def changed(**fields):
    return lambda line: json.dumps({**json.loads(line), **fields})


def test_rows_and_header_come_back_as_written(journal):
    read = read_journal(journal)
    assert read.header == HEADER
    assert [written.row for written in read.rows] == ROWS
    assert read.spent_s == 0.5 * (len(ROWS) - 1)
    assert not read.cut


def test_measured_set_holds_every_kind(journal):
    found = measured_set(read_journal(journal))
    assert (found.device, found.library, found.version) == ("h200", "torch", "2.13.0")
    assert [(t.family, len(t.seconds)) for t in found.tables] == [("attention_decode", 2), ("gemm", 1), ("moe", 1)]
    np.testing.assert_array_equal(found.tables[0].dims["kv_max"], [64.0, 100.0])
    np.testing.assert_array_equal(found.tables[0].lines, [4, 5])
    assert found.tables[2].kernels == ("loop:power_law_1.01",)
    np.testing.assert_array_equal(found.copies[0].size_bytes, [1024.0, 2048.0])
    assert (found.collectives[0].kind, found.collectives[0].ranks) == ("all_reduce", 2)
    assert found.contention[0].second_keeps == 0.5
    assert found.host[0].name == "eager_launch"
    assert found.machine["sentinel_drift"] == pytest.approx(0.05 / 1.05, abs=1e-4)


@pytest.mark.parametrize("lost", [1, 20])
def test_a_cut_last_line_is_dropped_and_written_over(journal, lost):
    journal.write_bytes(journal.read_bytes()[:-lost])
    read = read_journal(journal)
    assert read.cut
    assert len(read.rows) == len(ROWS) - 1
    with JournalWriter(read) as writer:
        writer.append(ROWS[-1], 9.0)
    again = read_journal(journal)
    assert not again.cut
    assert [written.row for written in again.rows] == ROWS


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (1, changed(schema=2)),
        (1, changed(more=1)),
        (1, lambda text: text[:-5]),
        (2, changed(seconds=0)),
        (2, changed(seconds=-1e-3)),
        (2, changed(seconds=float("nan"))),
        (2, changed(seconds=True)),
        (2, changed(seconds="1e-3")),
        (2, changed(seconds=10**400)),
        (2, changed(kind="sentinels")),
        (2, changed(kind=["sentinel"])),
        (3, changed(family="gemms")),
        (3, changed(dims={"m": 3, "n": 64})),
        (3, changed(dims={"m": 3, "n": 64, "k": 32, "l": 1})),
        (3, changed(dims={"m": 0, "n": 64, "k": 32})),
        (3, changed(extra=0)),
        (3, changed(repeats=0)),
        (3, changed(repeats=2.5)),
        (3, changed(spread=-0.1)),
        (3, changed(kernel="")),
        (3, changed(at_s=-1)),
        (4, changed(at_s=0.1)),
        (5, changed(dims={"batch": 2, "kv_len": 64, "kv_max": 10, **GQA})),
        (8, changed(name="hbm2")),
        (10, changed(ranks=1)),
        (6, lambda text: ""),
        (6, lambda text: text[:40]),
        (6, lambda text: "[" * 100_000),
        (6, lambda text: text.replace('"family"', '"dtype": "bf16", "family"')),
    ],
)
def test_damage_names_the_line(journal, line, change):
    with pytest.raises(InputError, match=f"line {line} "):
        read_journal(damaged(journal, line, change))


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    path = tmp_path / "points.jsonl"
    for content in (b"", b"hello", b"\xff\xfe\n", b"{}\n"):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_journal(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_journal(tmp_path / "absent.jsonl")
