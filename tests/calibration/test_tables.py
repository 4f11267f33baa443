"""Importers: what a row means, and which rows are refused, by their line."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from simtool.calibration import llmservingsim, vidur
from simtool.calibration.aiconfigurator import TABLES, find_tables, read_table
from simtool.calibration.fit_kernels import main
from simtool.calibration.measurements import read_columns
from simtool.errors import InputError
from simtool.hardware.device import load_device
from tests.shared_data import SHARED, needs_shared

GEMM = next(kind for kind in TABLES if kind.family == "gemm")
DECODE = next(kind for kind in TABLES if kind.family == "attention_decode")
MOE = next(kind for kind in TABLES if kind.family == "moe")
HEADER = "kernel_source,gemm_dtype,m,n,k,latency\n"


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path


def gemm_table(path: Path, *latencies: str) -> Path:
    rows = "".join(f"cublas,bfloat16,4096,4096,4096,{value}\n" for value in latencies)
    return write(path / "gemm_perf__vllm__1.csv.gz", HEADER + rows)


def test_latency_is_milliseconds_and_the_dims_are_named(tmp_path: Path) -> None:
    (rows,) = read_table(gemm_table(tmp_path, "0.25"), GEMM, load_device("h200"))
    assert rows.seconds.tolist() == [0.25e-3]
    assert {name: column.tolist() for name, column in rows.dims.items()} == {"m": [4096], "n": [4096], "k": [4096]}
    assert rows.dtype == "bf16"


@pytest.mark.parametrize("bad", ["nan", "", "-0.1", "0", "inf", "abc", "0.0001"])
def test_a_bad_row_is_refused_by_its_line(tmp_path: Path, bad: str) -> None:
    (rows,) = read_table(gemm_table(tmp_path, "0.25", bad, "0.26"), GEMM, load_device("h200"))
    assert len(rows.seconds) == 2
    (refusal,) = rows.refused
    assert refusal.line == 3
    assert refusal.reason


def test_a_negative_dimension_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv.gz", HEADER + "a,bfloat16,-4,64,64,0.1\na,bfloat16,4,64,64,0.1\n")
    (rows,) = read_table(path, GEMM, load_device("h200"))
    assert [r.line for r in rows.refused] == [2]


def test_a_truncated_row_names_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv.gz", HEADER + "a,bfloat16,4,64,64,0.1\na,bfloat16,4\n")
    with pytest.raises(InputError, match="line 3"):
        read_table(path, GEMM, load_device("h200"))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = gemm_table(tmp_path, *["0.25"] * 500)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="cannot be read"):
        read_table(path, GEMM, load_device("h200"))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv.gz", "gemm_dtype,m,n,latency\nbfloat16,1,1,1\n")
    with pytest.raises(InputError, match="lacks the columns k"):
        read_table(path, GEMM, load_device("h200"))
    with pytest.raises(InputError, match="lacks the columns"):
        read_columns(write(tmp_path / "empty.csv.gz", ""), ("m",))


def test_decode_length_is_isl_plus_step(tmp_path: Path) -> None:
    text = (
        "kernel_source,batch_size,isl,num_heads,num_key_value_heads,head_dim,attn_dtype,kv_cache_dtype,step,latency\n"
    )
    path = write(tmp_path / "t.csv.gz", text + "fa3,8,1,32,8,128,bfloat16,fp8,1023,0.02\n")
    (rows,) = read_table(path, DECODE, load_device("h200"))
    assert rows.dims["kv_len"].tolist() == [1024]
    assert rows.dims["window"].tolist() == [0]  # the older tables have no such column
    assert rows.dtype == "fp8"


def test_experts_keep_the_assumed_routing_only(tmp_path: Path) -> None:
    text = "kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,"
    rows = "".join(f"t,bfloat16,64,4096,1536,8,128,1,8,{d},0.3\n" for d in ("balanced", "power_law_1.01"))
    path = write(tmp_path / "t.csv.gz", text + "distribution,latency\n" + rows)
    (measured,) = read_table(path, MOE, load_device("h200"))
    assert measured.lines.tolist() == [3]


def test_no_data_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "holds no kernel table" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs_shared
@pytest.mark.shared
def test_a_known_point_of_the_real_table() -> None:
    """INDEX.md: H200 bf16 GEMM 32768 x 65536 x 12288 takes 63.83 ms, 827 TFLOP/s."""
    tables = {kind.family: path for kind, path in find_tables(SHARED / "data/aiconfigurator", "h200_sxm", "vllm")}
    rows = next(r for r in read_table(tables["gemm"], GEMM, load_device("h200")) if r.dtype == "bf16")
    at = (rows.dims["m"] == 32768) & (rows.dims["n"] == 65536) & (rows.dims["k"] == 12288)
    rate = 2 * 32768 * 65536 * 12288 / rows.seconds[at]
    assert rate == pytest.approx([827e12], rel=0.05)


@needs_shared
@pytest.mark.shared
def test_layer_profiles_read_as_operators() -> None:
    rows = llmservingsim.read_device(SHARED / "data/llmservingsim", "RTX4090", load_device("rtx-4090"))
    by_family = {r.family: r for r in rows}
    assert set(by_family) == {"gemm", "elementwise", "attention_prefill", "attention_decode"}
    gemm = by_family["gemm"]
    gate_up = (gemm.dims["n"] == 28672) & (gemm.dims["m"] == 1)
    assert gemm.seconds[gate_up] == pytest.approx([247.292e-6])
    assert all(np.all(r.seconds > 0) for r in rows)


@needs_shared
@pytest.mark.shared
def test_vidur_gemms_stay_below_the_peak() -> None:
    device = load_device("a40")
    gemm = next(r for r in vidur.read_device(SHARED / "data/vidur", "a40", device) if r.family == "gemm")
    rate = 2 * gemm.dims["m"] * gemm.dims["n"] * gemm.dims["k"] / gemm.seconds
    assert 0.5 * device.peak_flops("fp16") < rate.max() <= 1.15 * device.peak_flops("fp16")
