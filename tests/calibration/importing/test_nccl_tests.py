"""nccl-tests: microseconds and bytes, the ranks of the log, and rows that contradict themselves are refused by line."""

from pathlib import Path

import pytest

from simtool.calibration.importing import import_measurements
from simtool.errors import InputError

RANKS = "".join(
    f"#  Rank {rank:2d} Group  0 Pid  41{rank} on   node1 device  {rank} [0x{rank:02x}] NVIDIA A100-SXM4-80GB\n"
    for rank in range(4)
)
HEADER = """#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""
ROWS = """       0             0     float     sum      -1     5.12    0.00    0.00      0     5.01    0.00    0.00    0
        1024           256     float     sum      -1    20.15    0.05    0.08      0    19.90    0.05    0.08      0
     1048576        262144     float     sum      -1    40.25   26.05   39.08      0    39.80   26.35   39.52      0
   134217728      33554432     float     sum      -1    985.5  136.19  204.29      0    985.1  136.25  204.37      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 60.000
"""
START = "# nThread 1 nGpus 4 minBytes 0 maxBytes 134217728 step: 2(factor)\n# Using devices\n"


def log(path: Path, text: str, name: str = "run.log") -> Path:
    (path / name).write_text(text)
    return path / name


def test_sizes_are_bytes_and_times_microseconds_of_the_out_of_place_run(tmp_path: Path) -> None:
    path = log(tmp_path, "$ ./build/all_reduce_perf -b 0 -e 128M -f 2 -g 4\n" + START + RANKS + HEADER + ROWS)
    (found,) = import_measurements("nccl-tests", path)
    (samples,) = found.collectives
    assert (found.device, found.library) == ("a100-80g", "nccl")
    assert (samples.kind, samples.ranks) == ("all_reduce", 4)
    assert samples.size_bytes.tolist() == [1024, 1048576, 134217728]
    assert samples.seconds.tolist() == pytest.approx([20.15e-6, 40.25e-6, 985.5e-6])
    assert samples.lines == (13, 14, 15)


@pytest.mark.parametrize(
    ("name", "banner"),
    [
        ("all_reduce_perf.txt", ""),
        ("a.txt", "# Collective test starting: all_reduce_perf\n"),
        ("4gpus-all_reduce_perf.log", ""),
    ],
)
def test_the_collective_comes_from_the_text_else_from_the_file(tmp_path: Path, name: str, banner: str) -> None:
    for text in (banner + START + RANKS + HEADER + ROWS, START + banner + RANKS + HEADER + ROWS):
        (found,) = import_measurements("nccl-tests", log(tmp_path, text, name))
        assert [samples.kind for samples in found.collectives] == ["all_reduce"]


def test_a_log_of_two_runs_gives_both(tmp_path: Path) -> None:
    gather = "  67108864  16777216  float  none  -1   500.00  134.22  100.66      0   500.00  134.22  100.66    N/A\n"
    text = "$ all_reduce_perf -g 4\n" + START + RANKS + HEADER + ROWS
    text += "$ all_gather_perf -g 4\n" + START + RANKS + HEADER + gather
    (found,) = import_measurements("nccl-tests", log(tmp_path, text))
    assert [(s.kind, s.ranks, len(s.seconds)) for s in found.collectives] == [
        ("all_reduce", 4, 3),
        ("all_gather", 4, 1),
    ]


def test_ranks_on_two_hosts_are_another_library(tmp_path: Path) -> None:
    ranks = RANKS.replace("node1 device  3", "node2 device  3")
    (found,) = import_measurements("nccl-tests", log(tmp_path, START + ranks + HEADER + ROWS, "all_reduce_perf.txt"))
    assert [samples.library for samples in found.collectives] == ["nccl-2nodes"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("40.25   26.05", "40250   26.05", "line 13: says 26.05 GB/s"),
        ("40.25   26.05", "0.0403   26.05", "line 13: says 26.05 GB/s"),
        ("39.08      0", "39.08      7", "line 13: reports 7 wrong values"),
        ("39.08      0", "26.05      0", "line 13: says busbw"),
        ("40.25   26.05", "nan   26.05", "line 13: takes nan us"),
        ("   39.08      0    39.80   26.35   39.52      0", "", "line 13.*no whole row"),
        ("(us)", "(ms)", "no header with"),
        (RANKS, "", "'# Rank' lines"),
    ],
)
def test_a_row_that_cannot_be_right_is_refused_by_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = START + RANKS + HEADER + ROWS
    assert old in text
    path = log(tmp_path, text.replace(old, new), "all_reduce_perf.txt")
    with pytest.raises(InputError, match=message):
        import_measurements("nccl-tests", path, device="a100-80g")


def test_a_link_is_not_outrun(tmp_path: Path) -> None:
    """204 GB/s of bus bandwidth fit an A100's NVLink, not an L40S' PCIe."""
    path = log(tmp_path, START + RANKS + HEADER + ROWS, "all_reduce_perf.txt")
    with pytest.raises(InputError, match=r"line 14.*bandwidth of the pcie4"):
        import_measurements("nccl-tests", path, device="l40s")


def test_without_a_program_name_the_kind_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no known collective"):
        import_measurements("nccl-tests", log(tmp_path, START + RANKS + HEADER + ROWS))


def test_without_a_gpu_name_the_device_is_asked_for(tmp_path: Path) -> None:
    ranks = RANKS.replace(" NVIDIA A100-SXM4-80GB", "")
    path = log(tmp_path, START + ranks + HEADER + ROWS, "all_reduce_perf.txt")
    with pytest.raises(InputError, match="--device"):
        import_measurements("nccl-tests", path)
    (found,) = import_measurements("nccl-tests", path, device="my-gpu")
    assert found.device == "my-gpu"
