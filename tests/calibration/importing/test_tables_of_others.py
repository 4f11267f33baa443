"""Every table format: its unit, its shapes, and what it refuses."""

import gzip
from pathlib import Path

import pytest

from simtool.calibration.aiconfigurator_tables import version_key
from simtool.calibration.importing import FORMATS, import_measurements
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.errors import InputError

GEMM = "kernel_source,gemm_dtype,m,n,k,latency\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def table(found: MeasuredSet, family: str) -> Measurements:
    (rows,) = [rows for rows in found.tables if rows.family == family]
    return rows


def gemm_text(*latencies: str) -> str:
    """Square bf16 GEMMs of 1,024 to 8,192."""
    sizes = [1024, 2048, 4096, 8192]
    return GEMM + "".join(
        f"cublas,bfloat16,{sizes[i % 4]},{sizes[i % 4]},{sizes[i % 4]},{latency}\n"
        for i, latency in enumerate(latencies)
    )


FAIR_MS = ["0.008", "0.025", "0.18", "1.4"]


def test_aiconfigurator_chooses_the_newest_version_unless_told(tmp_path: Path) -> None:
    for version, latency in (("0.9.0", "0.026"), ("0.14.0", "0.025"), ("0.14.0rc2", "0.027")):
        write(tmp_path / f"h200_sxm/gemm_perf__vllm__{version}.csv.gz", GEMM + f"c,bfloat16,2048,2048,2048,{latency}\n")
    (newest,) = import_measurements("aiconfigurator", tmp_path)
    assert (newest.device, newest.library, newest.version) == ("h200", "vllm", "0.14.0")
    assert table(newest, "gemm").seconds.tolist() == [pytest.approx(25e-6)]
    (told,) = import_measurements("aiconfigurator", tmp_path, device="h200", library="vllm==0.9.0")
    assert table(told, "gemm").seconds.tolist() == [pytest.approx(26e-6)]
    with pytest.raises(InputError, match="has no table"):
        import_measurements("aiconfigurator", tmp_path, library="vllm==0.8.0")
    with pytest.raises(InputError, match="l40s: has no table"):
        import_measurements("aiconfigurator", tmp_path, device="l40s")
    with pytest.raises(InputError, match="sglang: has no table"):
        import_measurements("aiconfigurator", tmp_path, library="sglang")


def test_versions_sort_by_number_and_stage() -> None:
    ordered = ["0.5.6", "0.5.6.post2", "0.5.10", "1.0.0", "1.3.0rc10", "1.3.0rc20", "1.3.0"]
    mixed = [ordered[place] for place in (4, 1, 6, 2, 0, 5, 3)]
    assert sorted(mixed, key=version_key) == ordered


def test_nccl_message_sizes_are_elements(tmp_path: Path) -> None:
    rows = "".join(
        f"all_gather,NCCL,{t},8,{1 << e},{0.02 + 2**e / 1e8:.5f}\n" for t in ("half", "int8") for e in (10, 20)
    )
    write(
        tmp_path / "l40s/nccl_perf__nccl__2.csv.gz",
        "op_name,kernel_source,nccl_dtype,num_gpus,message_size,latency\n" + rows,
    )
    (found,) = import_measurements("aiconfigurator", tmp_path)
    (samples,) = found.collectives
    assert (samples.kind, samples.ranks, samples.size_bytes.tolist()) == ("all_gather", 8, [2048.0, 2097152.0])
    assert samples.seconds.tolist() == pytest.approx([20.01e-6, 30.49e-6])


def test_only_known_tables_are_opened(tmp_path: Path) -> None:
    write(tmp_path / "h200_sxm/gemm_perf__vllm__1.csv.gz", gemm_text(*FAIR_MS))
    for name in ("silicon_sample.csv", "h200_sxm/silicon_sample.csv", "h200_sxm/silicon_sample__vllm__1.csv.gz"):
        (tmp_path / name).mkdir()  # opening it would be an error
    (found,) = import_measurements("aiconfigurator", tmp_path)
    assert len(found.tables) == 1


def test_a_system_outside_the_catalogue_keeps_its_name_and_is_still_checked(tmp_path: Path) -> None:
    write(tmp_path / "a30/gemm_perf__vllm__1.csv.gz", gemm_text(*FAIR_MS * 20))
    (found,) = import_measurements("aiconfigurator", tmp_path, device="a30")
    assert (found.device, len(table(found, "gemm").seconds)) == ("a30", 80)
    mixed = [*FAIR_MS * 16, *(f"{1000 * float(ms)}" for ms in FAIR_MS * 4)]
    write(tmp_path / "a30/gemm_perf__vllm__1.csv.gz", gemm_text(*mixed))
    with pytest.raises(InputError, match="line 66"):
        import_measurements("aiconfigurator", tmp_path, device="a30")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GEMM.replace("k,", "") + "c,bfloat16,8,8,1\n", "lacks the columns k"),
        (GEMM + "c,bfloat16,8,8\n", "line 2 has 4 fields"),
        (gemm_text("nan", *FAIR_MS), "line 2: a value is missing"),
        (gemm_text(*FAIR_MS, "0.000008"), "line 6: .* is faster than"),
        (gemm_text(*(f"{1e3 * float(ms)}" for ms in FAIR_MS)), "check the unit"),
    ],
)
def test_a_wrong_table_is_refused_by_its_row(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "h200_sxm/gemm_perf__vllm__1.csv.gz", text)
    with pytest.raises(InputError, match=message):
        import_measurements("aiconfigurator", tmp_path)


def test_an_installed_package_is_read_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    package = tmp_path / "aiconfigurator_core"
    folder = package / "systems/data/h200_sxm/gemm/vllm/0.24.0"
    folder.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('was imported')")
    (package / "systems/silicon_sample.csv").mkdir()  # opening it would be an error
    columns = {"kernel_source": ["c"] * 2, "gemm_dtype": ["bfloat16", "fp8"], "m": [2048] * 2, "n": [2048] * 2}
    columns |= {"k": [2048] * 2, "latency": [0.025, 0.016], "framework": ["VLLM"] * 2}
    parquet.write_table(pyarrow.table(columns), folder / "gemm_perf.parquet")
    comm = package / "systems/data/h200_sxm/comm/nccl/2.29.2"
    comm.mkdir(parents=True)
    sizes = {
        "op_name": ["alltoall"],
        "nccl_dtype": ["half"],
        "num_gpus": [2],
        "message_size": [1024],
        "latency": [0.01],
    }
    parquet.write_table(pyarrow.table(sizes), comm / "nccl_perf.parquet")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match="name one"):
        import_measurements("aiconfigurator", Path("installed"))
    for path in (Path("installed"), package):
        (found,) = import_measurements("aiconfigurator", path, device="h200", library="vllm")
        assert (found.version, [rows.dtype for rows in found.tables]) == ("0.24.0", ["bf16", "fp8"])
        assert found.tables[0].seconds.tolist() == [25e-6]
        assert found.collectives[0].size_bytes.tolist() == [2048.0]
    (folder / "gemm_perf.parquet").write_bytes((folder / "gemm_perf.parquet").read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read as a table"):
        import_measurements("aiconfigurator", package, device="h200")


def test_a_package_that_is_not_there_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simtool.calibration.aiconfigurator_tables.PACKAGE", "no_such_package_of_tables")
    with pytest.raises(InputError, match="silicon"):
        import_measurements("aiconfigurator", Path("installed"), device="h200")


ATTENTION = (
    "time_stats.attn_prefill.median,time_stats.attn_decode.median,n_embd,n_q_head,n_kv_head,"
    "num_tensor_parallel_workers,batch_size,prefill_chunk_size,kv_cache_size,is_prefill\n"
)


def test_vidur_attention_is_milliseconds_and_its_cache_stands_before_the_chunk(tmp_path: Path) -> None:
    rows = "0.5,,4096,32,8,2,1,1024,512,True\n,0.15,4096,32,8,2,16,0,2048,False\n"
    write(tmp_path / "compute/a40/org/model/attention.csv", ATTENTION + rows)
    (found,) = import_measurements("vidur", tmp_path)
    prefill, decode = table(found, "attention_prefill"), table(found, "attention_decode")
    assert found.device == "a40"
    assert (prefill.seconds.tolist(), decode.seconds.tolist()) == ([0.5e-3], [0.15e-3])
    assert {name: prefill.dims[name].tolist() for name in ("heads", "kv_heads", "seq", "prefix")} == {
        "heads": [16.0],
        "kv_heads": [4.0],
        "seq": [1024.0],
        "prefix": [512.0],
    }
    assert (decode.dims["batch"].tolist(), decode.dims["kv_len"].tolist()) == ([16.0], [2048.0])


def network(*rows: str) -> str:
    return "time_stats.all_reduce.median,num_workers,size,collective,devices_per_node\n" + "".join(rows)


def test_vidur_collectives_are_milliseconds_of_whole_nodes_and_name_their_links(tmp_path: Path) -> None:
    text = network("0.05,4,2048,all_reduce,4\n", "0.09,4,2048,all_reduce,2\n")
    for topology in ("dgx", "pairwise_nvlink"):
        write(tmp_path / f"data/profiling/network/a100_{topology}/all_reduce.csv.gz", text)
    (found,) = import_measurements("vidur", tmp_path, device="a100")
    assert [(s.library, s.ranks, s.seconds.tolist()) for s in found.collectives] == [
        ("nccl", 4, [0.05e-3]),
        ("nccl-pairwise", 4, [0.05e-3]),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("fast,4,2048,all_reduce,4\n", "line 3.*cannot be read"),
        ("0.05,4\n", "line 3.*cannot be read"),
        ("0.0000001,4,1e9,all_reduce,4\n", "line 3.*bandwidth"),
    ],
)
def test_a_wrong_collective_is_refused_by_its_line(tmp_path: Path, row: str, message: str) -> None:
    write(tmp_path / "network/a100_dgx/all_reduce.csv", network("0.05,4,2048,all_reduce,4\n", row))
    with pytest.raises(InputError, match=message):
        import_measurements("vidur", tmp_path)


def test_llmservingsim_v0_layers_are_nanoseconds_and_its_cache_holds_the_chunk(tmp_path: Path) -> None:
    folder = tmp_path / "profiler/v0/perf_models/A6000/meta-llama/Llama-3.1-8B/tp1"
    text = "layer_name,input,kv_cache,tp_size,latency(ns)\n"
    write(folder / "layers.csv", text + "q_proj,64,0,1,50000\nrope,64,0,1,29000\nattn,64,0,1,6000\ngate,64,0,1,9000\n")
    rows = "0.143,,4096,32,8,1,1,512,1536,True\n,0.05,4096,32,8,1,16,0,2048,False\n"
    write(folder / "attention.csv.gz", ATTENTION + rows)
    (found,) = import_measurements("llmservingsim", tmp_path)
    assert found.device == "a6000"
    assert table(found, "gemm").seconds.tolist() == pytest.approx([50e-6])
    assert [table(found, "gemm").dims[d].tolist() for d in "mnk"] == [[64.0], [4096.0], [4096.0]]
    prefill = table(found, "attention_prefill")
    assert prefill.dims["seq"].tolist() == [64.0, 512.0]
    assert prefill.dims["prefix"].tolist() == [0.0, 1024.0]
    assert prefill.seconds.tolist() == pytest.approx([6e-6, 143e-6])
    assert {rows.family for rows in found.tables} == {"gemm", "elementwise", "attention_prefill"}  # no v0 decode
    assert "decode" in str(found.machine["left_out"])


def test_llmservingsim_skew_keeps_the_longest_beside_the_mean(tmp_path: Path) -> None:
    folder = tmp_path / "profiler/perf/RTX4090/meta-llama/Llama-3.1-8B/bf16/tp1"
    write(folder / "dense.csv", "layer,tokens,time_us\no_proj,64,60\n")
    write(folder / "per_sequence.csv", "layer,sequences,time_us\nlm_head,8,1110\n")
    write(folder / "attention.csv.gz", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,8,1024,60\n")
    head = "regime,n,kv_big,kv_mean,t_mean_us,t_max_us,t_skew_us\n"
    write(folder / "skew.csv.gz", head + "pure,8,4096,1024,60,180,90\nmixed,8,4096,1024,60,180,90\n")
    (found,) = import_measurements("llmservingsim", tmp_path, device="rtx-4090")
    plain, skewed = (rows for rows in found.tables if rows.family == "attention_decode")
    assert "kv_max" not in plain.dims
    assert skewed.dims["kv_len"].tolist() == [1024, 4096, 1024]
    assert skewed.dims["kv_max"].tolist() == [1024, 4096, 4096]
    assert skewed.seconds.tolist() == pytest.approx([60e-6, 180e-6, 90e-6])
    assert skewed.lines.tolist() == [2, 2, 2]


def test_apex_is_microseconds_and_kibibytes(tmp_path: Path) -> None:
    text = "gpu,num_nodes,num_gpus_per_node,dtype,size(kb),time(us)\nH200,1,8,half,0,15\nH200,1,8,half,1024,26\n"
    write(tmp_path / "profile/comm/H200-SXM-141GB/all_reduce.csv", text)
    (found,) = import_measurements("apex", tmp_path)
    (samples,) = found.collectives
    assert found.device == "h200"
    assert (samples.size_bytes.tolist(), samples.seconds.tolist(), samples.lines) == ([1048576.0], [26e-6], (3,))


SPLITWISE = "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel\n"


def test_splitwise_rows_are_whole_steps_in_milliseconds(tmp_path: Path) -> None:
    rows = "llama,a100-80gb,512,2,128,196,54,2\nllama,a100-80gb-pcap,512,2,128,400,60,2\n"
    path = write(tmp_path / "perf_model.csv", SPLITWISE + rows)
    (found,) = import_measurements("splitwise", path)
    assert found.device == "a100-80g"
    assert {rows.family for rows in found.tables} == {"step"}
    steps = {
        float(out): float(s)
        for rows in found.tables
        for out, s in zip(rows.dims["tokens_out"], rows.seconds, strict=True)
    }
    assert steps == {0.0: pytest.approx(0.196), 128.0: pytest.approx(0.054)}
    assert found.machine["left_out"] == "1 power-capped rows"


def test_splitwise_with_a_missing_time_is_refused_by_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "perf_model.csv", SPLITWISE + "llama,a100-80gb,512,2,128,,54,2\n")
    with pytest.raises(InputError, match="line 2"):
        import_measurements("splitwise", path)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_a_path_without_such_tables_is_one_clear_error(tmp_path: Path, format: str) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError):
            import_measurements(format, path, device="h200")


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vidur"):
        import_measurements("vidurr", tmp_path)
