"""Every tool's result is the same run in the same words, and every bad file is one clear error."""

import json

import numpy as np
import pytest

from simtool.calibration.validation.reading import read_measurement
from simtool.errors import InputError
from simtool.metrics import serving_metrics
from tests.metrics.runs import run_of
from tests.shared_data import SHARED, needs_shared
from tests.validation import results


def of_aiperf(folder, concurrency=0):
    results.write(folder / "profile_export.jsonl", *results.aiperf_records())
    results.write(folder / "profile_export_aiperf.json", results.aiperf_summary(concurrency))
    return folder


def written(tmp_path, name):
    match name:
        case "vllm":
            return results.write(tmp_path / "result.json", results.vllm())
        case "guidellm":
            return results.write(tmp_path / "benchmarks.json", results.guidellm())
        case "aiperf":
            return of_aiperf(tmp_path)


@pytest.mark.parametrize("name", ["vllm", "guidellm", "aiperf"])
def test_files_with_send_times_give_the_same_run(tmp_path, name):
    found = read_measurement(written(tmp_path, name))
    workload = found.workload
    assert np.allclose(workload.arrival_s, [0.0, 0.5, 1.0])
    assert workload.input_tokens.tolist() == results.INPUTS
    assert workload.output_tokens.tolist() == results.OUTPUTS
    assert workload.max_concurrency == 0
    assert found.metrics["mean_e2el_ms"] == pytest.approx(1e3 * np.mean(results.E2E), rel=1e-6)
    assert found.metrics["mean_ttft_ms"] == pytest.approx(63.333, rel=1e-3)
    assert found.metrics["duration"] == pytest.approx(1.093, rel=1e-3)
    assert "preemptions" not in found.metrics


def test_sglang_has_latencies_and_a_closed_loop_but_no_send_times(tmp_path):
    found = read_measurement(results.write(tmp_path / "out.jsonl", results.sglang()))
    assert found.tool == "SGLang bench_serving"
    assert found.workload.max_concurrency == 2
    assert found.metrics["total_token_throughput"] == 1330.0
    assert found.metrics["p99_e2el_ms"] == 100.0
    assert found.metrics["duration"] == 0.3, "what the file states, not what lists without send times would give"


def test_a_rate_without_send_times_becomes_poisson_and_says_so(tmp_path):
    path = results.write(tmp_path / "out.jsonl", results.sglang(request_rate=4.0, max_concurrency=None))
    found = read_measurement(path)
    assert found.workload.arrival_s[-1] > 0
    assert "Poisson" in found.notes[0]
    path = results.write(tmp_path / "out.jsonl", results.sglang(request_rate="trace", max_concurrency=None))
    assert read_measurement(path).workload is None


def test_of_several_runs_one_is_named(tmp_path):
    path = results.write(tmp_path / "out.jsonl", results.sglang(), results.sglang(duration=0.7))
    with pytest.raises(InputError, match="holds 2 runs"):
        read_measurement(path)
    assert read_measurement(f"{path}#2").metrics["duration"] == 0.7
    with pytest.raises(InputError, match="holds 2 runs"):
        read_measurement(f"{path}#3")
    document = results.guidellm()
    document["benchmarks"] *= 2
    path = results.write(tmp_path / "benchmarks.json", document)
    with pytest.raises(InputError, match="holds 2 benchmarks"):
        read_measurement(path)
    assert read_measurement(f"{path}#1").workload.num_requests == 3


def test_guidellm_streams_are_a_closed_loop(tmp_path):
    document = results.guidellm(strategy={"type_": "concurrent", "streams": 2})
    found = read_measurement(results.write(tmp_path / "b.json", document))
    assert found.workload.max_concurrency == 2
    assert not found.workload.arrival_s.any()


def test_aiperf_concurrency_and_failures(tmp_path):
    found = read_measurement(of_aiperf(tmp_path, concurrency=2))
    assert found.workload.max_concurrency == 2
    assert found.workload.num_requests == 3
    assert "1 failed" in found.notes[0]
    summary = read_measurement(results.write(tmp_path / "other.json", results.aiperf_summary()))
    assert summary.result is None
    assert summary.metrics["mean_tpot_ms"] == pytest.approx(14.0)
    assert summary.metrics["duration"] == pytest.approx(1.1)


def test_metrics_alone_are_read_from_files_without_requests(tmp_path):
    found = read_measurement(results.write(tmp_path / "report.json", results.trtllm()))
    assert found.workload is None
    assert found.metrics["output_throughput"] == 30.0
    assert found.metrics["duration"] == pytest.approx(0.3)
    assert found.metrics["p99_e2el_ms"] == 100.0
    plain = {key: value for key, value in results.vllm().items() if not isinstance(value, list)}
    assert read_measurement(results.write(tmp_path / "plain.json", plain)).metrics["mean_tpot_ms"] == 14.0
    document = results.guidellm()
    document["benchmarks"][0]["requests"]["successful"] = []
    found = read_measurement(results.write(tmp_path / "b.json", document))
    assert found.metrics["p99_e2el_ms"] == pytest.approx(100.0)
    assert found.result is None


BROKEN = {
    "empty": ("", "is empty"),
    "truncated": (json.dumps(results.vllm())[:-40], "not JSON"),
    "truncated lines": (json.dumps(results.sglang()) + "\n" + json.dumps(results.sglang())[:-9], "line 2"),
    "a list": ("[1, 2]", "one JSON object"),
    "something else": ('{"a": 1}', "no measured run"),
    "nothing completed": (json.dumps(results.vllm(completed=0)), "completed no request"),
    "all failed": (json.dumps(results.vllm(output_lens=[0, 0, 0])), "completed no request"),
    "lists of other lengths": (json.dumps(results.vllm(ttfts=[0.1])), "has 1 ttfts for 3 requests"),
    "a NaN": (json.dumps(results.vllm(ttfts=[0.1, float("nan"), 0.1])), "request 1 has no finite TTFT"),
    "text for a number": (json.dumps(results.vllm(input_lens=[1, "x", 2])), "request 1 has no finite input tokens"),
    "half a token": (json.dumps(results.vllm(input_lens=[1, 2.5, 2])), "input tokens of 2.5"),
    "a negative gap": (json.dumps(results.vllm(itls=[[0.1, -1.0], [0.1], [0.1]])), "request 0"),
    "gaps that are no list": (json.dumps(results.vllm(itls=[0.1, 0.2, 0.3])), "request 0 has no list"),
    "no benchmark": ('{"benchmarks": []}', "no list of benchmarks"),
    "no metric": ('{"performance": {}, "engine": {}}', "no metric"),
    "nothing completed by trtllm": ('{"performance": {}, "request_info": {"num_requests": 0}}', "completed no request"),
    "a unit of nothing": (
        json.dumps(results.aiperf_summary() | {"request_latency": {"unit": "parsecs", "avg": 1}}),
        "a time in 'parsecs'",
    ),
    "an endless answer": (json.dumps(results.vllm(ttfts=[0.1, 1e300, 0.1])), "request 1 has a TTFT of 1e"),
    "an endless gap": (
        json.dumps(results.vllm(itls=[[1e300, 0.1], [0.1], [0.1] * 3])),
        "request 0 has a latency of 1e",
    ),
    "a number beyond floats": (json.dumps(results.vllm(ttfts=[0.1, 10**400, 0.1])), "request 1 has no finite TTFT"),
    "a negative concurrency": (json.dumps(results.vllm(max_concurrency=-1)), "max_concurrency is -1"),
    "an endless concurrency": (json.dumps(results.vllm(max_concurrency=1e30)), "max_concurrency is 1e"),
    "streams of text": (
        json.dumps(results.guidellm(strategy={"type_": "concurrent", "streams": 2.5})),
        "number of streams is 2.5",
    ),
    "deep": ("[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_bad_file_is_one_clear_error(tmp_path, name):
    text, told = BROKEN[name]
    path = tmp_path / "result.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        read_measurement(path)


def test_fields_of_another_kind_are_as_if_they_were_absent(tmp_path):
    document = results.guidellm()
    document["benchmarks"][0]["requests"] |= {"errored": 5, "incomplete": True}
    assert read_measurement(results.write(tmp_path / "b.json", document)).workload.num_requests == 3
    folder = of_aiperf(tmp_path, concurrency=2)
    results.write(folder / "profile_export_aiperf.json", results.aiperf_summary() | {"input_config": {"phases": 1.5}})
    assert read_measurement(folder).workload.max_concurrency == 0


def test_an_engine_of_a_replay_has_bounded_sizes(tmp_path):
    row = {"arrival_time": 1.0, "queued_ts": 5.0, "first_token_ts": 5.1, "last_token_ts": 5.5}
    results.write(tmp_path / "requests.jsonl", row | {"input_toks": 10, "output_toks": 4})
    results.write(tmp_path / "meta.json", {"engine_kwargs": {"max_num_seqs": 1e18}})
    with pytest.raises(InputError, match=r"max_num_seqs is 1e\+18"):
        read_measurement(tmp_path)


def test_missing_binary_and_empty_places_are_told(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_measurement(tmp_path / "absent.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_measurement(tmp_path / "binary")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="holds no measured run"):
        read_measurement(tmp_path / "folder")


@needs_shared
def test_the_replayed_traces_state_their_engine():
    folder = SHARED / "data" / "llmservingsim" / "bench" / "examples" / "RTX4090" / "Llama-3.1-8B"
    found = read_measurement(folder)
    assert found.engine["num_gpu_blocks_override"] == 2588
    assert found.engine["max_num_seqs"] == 256
    assert found.workload.num_requests == 300
    assert found.metrics["mean_tpot_ms"] == pytest.approx(32.4, abs=0.1)


DETAILED = {
    "input_lens": [10, 20],
    "output_lens": [3, 2],
    "ttfts": [0.5, 0.25],
    "itls": [[0.1, 0.3], [0.2]],
    "start_times": [101.0, 102.0],
    "request_throughput": 1.4,
    "mean_ttft_ms": 375.0,
    "backend": "vllm",
    "request_goodput": None,
}


def test_a_measured_run_has_the_same_metrics_as_the_simulated_one(tmp_path):
    found = read_measurement(results.write(tmp_path / "r.json", DETAILED))
    measured = serving_metrics(found.result)
    simulated = serving_metrics(run_of([1.0, 2.0], [0.5, 0.25], [[0.1, 0.3], [0.2]]))
    for key in ("duration", "mean_ttft_ms", "p99_tpot_ms", "p99_itl_ms", "mean_e2el_ms", "output_throughput"):
        assert measured[key] == pytest.approx(simulated[key]), key
    assert found.metrics["request_throughput"] == 1.4, "what the file states"


def test_failed_requests_are_left_out_and_said(tmp_path):
    document = DETAILED | {"output_lens": [0, 2], "itls": [[], [0.2]], "ttfts": [0.0, 0.25]}
    found = read_measurement(results.write(tmp_path / "r.json", document))
    assert len(found.result.sent_s) == 1
    assert "1 failed request" in " ".join(found.notes)


@pytest.mark.parametrize(
    "document",
    [[], {}, DETAILED | {"ttfts": [1.0]}, DETAILED | {"ttfts": ["a", "b"]}, DETAILED | {"start_times": [1.0]},
     DETAILED | {"itls": [[None], [1.0]]}, DETAILED | {"output_lens": [[1], [2, 3]]}],
)  # fmt: skip
def test_bad_lists_of_vllm_are_one_error(tmp_path, document):
    with pytest.raises(InputError):
        read_measurement(results.write(tmp_path / "r.json", document))
