"""Result files in the schemas of the tools that write them, with numbers of our own."""

import json

INPUTS, OUTPUTS = [100, 250, 40], [3, 2, 4]
TTFT = [0.05, 0.08, 0.06]
ITLS = [[0.01, 0.012], [0.02], [0.01, 0.01, 0.013]]
STARTS = [1000.0, 1000.5, 1001.0]
E2E = [ttft + sum(gaps) for ttft, gaps in zip(TTFT, ITLS, strict=True)]


def vllm(**changes):
    """`vllm bench serve --save-result --save-detailed`."""
    return {
        "date": "20261101-120000",
        "backend": "vllm",
        "model_id": "meta-llama/Llama-3.1-8B",
        "num_prompts": 3,
        "request_rate": 2.0,
        "max_concurrency": None,
        "duration": 1.093,
        "completed": 3,
        "total_input_tokens": 390,
        "total_output_tokens": 9,
        "request_throughput": 3 / 1.093,
        "output_throughput": 9 / 1.093,
        "total_token_throughput": 399 / 1.093,
        "mean_ttft_ms": 63.3,
        "mean_tpot_ms": 14.0,
        "input_lens": INPUTS,
        "output_lens": OUTPUTS,
        "ttfts": TTFT,
        "itls": ITLS,
        "start_times": STARTS,
        "generated_texts": ["", "", ""],
        "errors": ["", "", ""],
    } | changes


def sglang(**changes):
    """A line of bench_serving's JSONL (sglang 0.5, --output-details)."""
    return {
        "tag": None,
        "backend": "sglang",
        "dataset_name": "random",
        "request_rate": float("inf"),
        "max_concurrency": 2,
        "server_info": None,
        "duration": 0.3,
        "completed": 3,
        "total_input_tokens": 390,
        "total_output_tokens": 9,
        "request_throughput": 10.0,
        "output_throughput": 30.0,
        "total_throughput": 1330.0,
        "mean_e2e_latency_ms": 88.0,
        "p99_e2e_latency_ms": 100.0,
        "mean_ttft_ms": 63.3,
        "mean_tpot_ms": 14.0,
        "accept_length": None,
        "input_lens": INPUTS,
        "output_lens": OUTPUTS,
        "ttfts": TTFT,
        "itls": ITLS,
        "errors": ["", "", ""],
    } | changes


def trtllm():
    """`trtllm-bench throughput --report_json`."""
    return {
        "engine": {"model": "llama", "backend": "Pytorch", "dtype": "bfloat16"},
        "world_info": {"tp_size": 1, "pp_size": 1, "world_size": 1, "max_batch_size": 256, "max_num_tokens": 2048},
        "request_info": {"num_requests": 3, "avg_input_length": 130.0, "avg_output_length": 3.0},
        "performance": {
            "total_latency_ms": 300.0,
            "avg_request_latency_ms": 88.0,
            "request_throughput_req_s": 10.0,
            "system_output_throughput_tok_s": 30.0,
            "system_total_throughput_tok_s": 1330.0,
            "request_latency_percentiles_ms": {"p50": 80.0, "p99": 100.0, "average": 88.0},
        },
        "streaming_metrics": {"avg_ttft_ms": 63.3, "avg_tpot_ms": 14.0},
    }


def guidellm(strategy=None, **changes):
    """GuideLLM's benchmarks.json (0.8)."""
    requests = [
        {
            "type_": "generative_request_stats",
            "request_id": str(row),
            "prompt_tokens": INPUTS[row],
            "output_tokens": OUTPUTS[row],
            "request_start_time": STARTS[row],
            "request_end_time": STARTS[row] + E2E[row],
            "request_latency": E2E[row],
            "time_to_first_token_ms": 1e3 * TTFT[row],
            "inter_token_latency_ms": 1e3 * (E2E[row] - TTFT[row]) / (OUTPUTS[row] - 1),
        }
        for row in range(3)
    ]
    benchmark = {
        "type_": "generative_benchmark",
        "config": {"strategy": strategy or {"type_": "poisson", "rate": 2.0}},
        "duration": 1.1,
        "metrics": {
            "request_totals": {"successful": 3, "incomplete": 0, "errored": 0, "total": 3},
            "requests_per_second": {"successful": {"mean": 2.7}},
            "output_tokens_per_second": {"successful": {"mean": 8.2}},
            "request_latency": {"successful": {"mean": 0.0883, "median": 0.085, "percentiles": {"p99": 0.1}}},
            "time_to_first_token_ms": {"successful": {"mean": 63.3, "median": 60.0, "percentiles": {"p99": 80.0}}},
        },
        "requests": {"successful": requests, "incomplete": [], "errored": [], "total": None},
    } | changes
    return {"metadata": {"version": 2, "guidellm_version": "0.8.1"}, "benchmarks": [benchmark]}


def aiperf_records():
    """Lines of profile_export.jsonl (AIPerf 0.13): a warm-up request, three good ones and a failed one."""

    def record(row, **metadata):
        return {
            "metadata": {
                "session_num": row,
                "benchmark_phase": "profiling",
                "request_start_ns": int(1e9 * STARTS[row]),
                "request_end_ns": int(1e9 * (STARTS[row] + E2E[row])),
                "worker_id": "w",
                "was_cancelled": False,
            }
            | metadata,
            "metrics": {
                "time_to_first_token": {"value": 1e3 * TTFT[row], "unit": "ms"},
                "request_latency": {"value": 1e3 * E2E[row], "unit": "ms"},
                "input_sequence_length": {"value": INPUTS[row], "unit": "tokens"},
                "output_sequence_length": {"value": OUTPUTS[row], "unit": "tokens"},
            },
            "error": None,
        }

    failed = record(0) | {"metrics": {}, "error": {"code": 500, "message": "no"}}
    return [record(0, benchmark_phase="warmup"), *(record(row) for row in range(3)), failed]


def aiperf_summary(concurrency=0):
    """profile_export_aiperf.json."""
    phases = [{"name": "profiling", "type": "concurrency", "concurrency": concurrency}] if concurrency else []
    return {
        "schema_version": "1.1",
        "aiperf_version": "0.13.0",
        "input_config": {"phases": phases},
        "request_throughput": {"unit": "requests/sec", "avg": 2.7},
        "request_latency": {"unit": "ms", "avg": 88.3, "p50": 85.0, "p99": 100.0},
        "request_count": {"unit": "requests", "avg": 3.0},
        "time_to_first_token": {"unit": "ms", "avg": 63.3, "p50": 60.0},
        "inter_token_latency": {"unit": "ms", "avg": 14.0},
        "output_token_throughput": {"unit": "tokens/sec", "avg": 8.2},
        "benchmark_duration": {"unit": "sec", "avg": 1.1},
    }


def write(path, *documents):
    """JSON, or JSONL of several."""
    path.write_text("\n".join(json.dumps(document) for document in documents), encoding="utf-8")
    return path
