"""PyTorch profiler traces: kernels belong to the operator that launched them, shapes are the dims, the rest is told."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from simtool.calibration.importing import import_measurements
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.errors import InputError

Event = dict[str, Any]
HALF = ["c10::BFloat16"] * 3


class Trace:
    """A trace of calls one after another; each launches its kernel through cudaLaunchKernel, as on a GPU."""

    def __init__(self) -> None:
        self.events: list[Event] = [{"ph": "M", "name": "process_name"}]
        self.now = 0.0

    def span(self, cat: str, name: str, dur: float, **args: object) -> None:
        self.events.append(
            {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 1, "ts": self.now, "dur": dur, "args": args}
        )

    def call(self, name: str, dims: object, types: object, kernel_us: float, **args: object) -> None:
        number = len(self.events)
        shapes = {"Input Dims": dims, "Input type": types}
        self.span("cpu_op", name, 10.0, **{"External id": number, **shapes, **args})
        self.now += 1.0
        self.span("cuda_runtime", "cudaLaunchKernel", 2.0, **{"External id": number, "correlation": 7000 + number})
        self.now += 20.0
        self.span("kernel", f"kernel_of_{name}", kernel_us, correlation=7000 + number)

    def save(self, path: Path) -> Path:
        trace = {"schemaVersion": 1, "deviceProperties": [{"name": "NVIDIA H200"}], "traceEvents": self.events}
        text = json.dumps(trace).encode()
        path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
        return path


def table(found: MeasuredSet, family: str) -> Measurements:
    (rows,) = [rows for rows in found.tables if rows.family == family]
    return rows


def dims(rows: Measurements) -> dict[str, list[float]]:
    return {name: column.tolist() for name, column in rows.dims.items()}


def imported(trace: Trace, tmp_path: Path, **options: str) -> MeasuredSet:
    (found,) = import_measurements("kineto", trace.save(tmp_path / "t.json"), **options)
    return found


def test_a_gemm_takes_what_its_kernel_takes(tmp_path: Path) -> None:
    trace = Trace()
    trace.call("aten::mm", [[2048, 4096], [4096, 1024]], HALF[:2], 30.0)
    trace.call("aten::addmm", [[1024], [2048, 4096], [4096, 1024]], HALF, 32.0)
    trace.call("aten::bmm", [[8, 64, 64], [8, 64, 64]], HALF[:2], 5.0)
    (found,) = import_measurements("kineto", trace.save(tmp_path / "t.json.gz"))
    gemm = table(found, "gemm")
    assert (found.device, gemm.dtype) == ("h200", "bf16")
    assert gemm.seconds.tolist() == pytest.approx([30e-6, 32e-6])
    assert dims(gemm) == {"m": [2048, 2048], "n": [1024, 1024], "k": [4096, 4096]}
    assert gemm.lines.tolist() == [2, 5]
    assert found.machine["left_out"] == "aten::bmm 1"


def test_the_external_id_links_a_kernel_whose_launch_is_not_there(tmp_path: Path) -> None:
    trace = Trace()
    trace.span(
        "cpu_op", "aten::mm", 9.0, **{"External id": 3, "Input Dims": [[64, 512], [512, 256]], "Input type": HALF}
    )
    trace.span("kernel", "nvjet", 6.0, **{"External id": 3, "correlation": 1})
    trace.span("kernel", "lonely", 6.0, correlation=2)
    found = imported(trace, tmp_path)
    assert table(found, "gemm").seconds.tolist() == [6e-6]
    assert found.machine["left_out"] == "kernels of no operator 1"


QUERY, KEY, ONE = [2, 32, 512, 128], [2, 8, 512, 128], [2, 32, 1, 128]
FLASH = "aten::_scaled_dot_product_flash_attention"


def attention(trace: Trace, query: list[int], key: list[int], causal: str) -> None:
    trace.call(FLASH, [query, key, key], HALF, 60.0, **{"Concrete Inputs": ["", "", "", "0.", causal, "False"]})


def test_attention_is_prefill_or_decode_where_the_shapes_tell(tmp_path: Path) -> None:
    trace = Trace()
    attention(trace, QUERY, KEY, "True")
    attention(trace, QUERY, KEY, "False")
    attention(trace, [2, 32, 256, 128], KEY, "True")
    attention(trace, ONE, KEY, "False")
    found = imported(trace, tmp_path)
    shape = {"batch": [2], "heads": [32], "kv_heads": [8], "head_dim": [128], "window": [0]}
    assert dims(table(found, "attention_prefill")) == shape | {"seq": [512], "prefix": [0]}
    assert dims(table(found, "attention_decode")) == shape | {"kv_len": [512]}
    assert found.machine["left_out"] == f"{FLASH} (not causal, or not told) 1, {FLASH} (causal with a cache) 1"


def test_kernels_of_a_nested_call_belong_to_the_outer_operator(tmp_path: Path) -> None:
    trace = Trace()
    causal = {"Concrete Inputs": ["", "", "", "0.", "True", "False"]}
    shapes = {"Input Dims": [QUERY, KEY, KEY], "Input type": HALF}
    trace.span("cpu_op", FLASH, 100.0, **{"External id": 900, **shapes, **causal})
    trace.now += 1.0
    trace.call("aten::_flash_attention_forward", [[2, 512, 32, 128]], HALF, 60.0)
    trace.call("aten::fill_", [[4]], HALF, 3.0)
    found = imported(trace, tmp_path)
    assert table(found, "attention_prefill").seconds.tolist() == pytest.approx([63e-6])


COMM = {
    "Collective name": "allreduce",
    "In msg nelems": 4096,
    "Out msg nelems": 4096,
    "Group size": 8,
    "dtype": "BFloat16",
}


def test_a_collective_counts_the_larger_buffer(tmp_path: Path) -> None:
    trace = Trace()
    trace.call("record_param_comms", [], [], 30.0, **COMM)
    gather = COMM | {"Collective name": "_allgather_base", "Out msg nelems": 32768}
    trace.span("kernel", "ncclDevKernel_AllGather", 25.0, correlation=5, **gather)
    trace.call("record_param_comms", [], [], 30.0, **(COMM | {"Collective name": "broadcast"}))
    found = imported(trace, tmp_path)
    assert [(s.kind, s.ranks, s.size_bytes.tolist(), s.seconds.tolist()) for s in found.collectives] == [
        ("all_gather", 8, [65536.0], [pytest.approx(25e-6)]),
        ("all_reduce", 8, [8192.0], [pytest.approx(30e-6)]),
    ]
    assert found.machine["left_out"] == "collective broadcast of BFloat16 1"


def test_warm_up_calls_are_left_out(tmp_path: Path) -> None:
    trace = Trace()
    for us in (900.0, 30.0, 31.0):
        trace.call("aten::mm", [[2048, 4096], [4096, 1024]], HALF[:2], us)
    found = imported(trace, tmp_path)
    assert table(found, "gemm").seconds.tolist() == pytest.approx([30e-6, 31e-6])
    assert found.machine["left_out"] == "warm-up calls 1"


def test_a_gemm_beyond_the_peak_is_refused_by_its_event(tmp_path: Path) -> None:
    trace = Trace()
    trace.call("aten::mm", [[2048, 4096], [4096, 1024]], HALF[:2], 30.0)
    trace.call("aten::mm", [[8192, 8192], [8192, 8192]], HALF[:2], 300.0)
    with pytest.raises(InputError, match=r"line 5.*peak"):
        imported(trace, tmp_path)
    assert len(table(imported(trace, tmp_path, device="my-gpu"), "gemm").seconds) == 2  # no peak is known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"traceEvents": [{"ph": "X",\n', "line 2.*no JSON"),
        ('{"events": []}', "has no traceEvents"),
        ('{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 1}]}', "event 1.*dur"),
        ('{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 1, "dur": 5}]}', "record_shapes"),
    ],
)
def test_a_broken_trace_says_where(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InputError, match=message):
        import_measurements("kineto", tmp_path / "t.json", device="h200")


def test_a_cut_gzip_is_refused(tmp_path: Path) -> None:
    trace = Trace()
    trace.call("aten::mm", [[64, 64], [64, 64]], HALF[:2], 5.0)
    path = trace.save(tmp_path / "t.json.gz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be read"):
        import_measurements("kineto", path)
