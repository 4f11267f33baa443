"""`trtllm-bench` report JSON (`--report_json`): metrics alone, all requests queued at once or a fixed concurrency.

Only keys that carry their unit are read; percentiles are taken where their key says milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simtool.calibration.validation.fields import finite, known, part
from simtool.calibration.validation.measurement import Measurement
from simtool.errors import InputError

TOOL = "trtllm-bench"
_PERCENTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "average": "mean"}


def read_trtllm(document: Mapping[str, Any], source: str) -> Measurement:
    """The report's metrics by vLLM's keys. Raises InputError where it states none, or completed nothing."""
    performance, streaming = part(document, "performance"), part(document, "streaming_metrics")
    requests = finite(part(document, "request_info").get("num_requests"))
    if requests == 0:
        raise InputError(source, "completed no request", "a run in which every request failed cannot be compared")
    metrics = {
        "completed": requests,
        "duration": finite(performance.get("total_latency_ms")) * 1e-3,
        "request_throughput": performance.get("request_throughput_req_s"),
        "output_throughput": performance.get("system_output_throughput_tok_s"),
        "total_token_throughput": performance.get("system_total_throughput_tok_s"),
        "mean_e2el_ms": performance.get("avg_request_latency_ms"),
        "mean_ttft_ms": streaming.get("avg_ttft_ms"),
        "mean_tpot_ms": streaming.get("avg_tpot_ms"),
    }
    places = ((performance, "request_latency", "e2el"), (streaming, "ttft", "ttft"), (streaming, "tpot", "tpot"))
    for inner, theirs, ours in places:
        tails = part(inner, f"{theirs}_percentiles_ms")
        metrics |= {f"{kind}_{ours}_ms": tails[name] for name, kind in _PERCENTILES.items() if name in tails}
    found = known(metrics)
    if not found.keys() - {"completed"}:
        raise InputError(
            source, "states no metric that this reader knows", "give the file of trtllm-bench --report_json"
        )
    note = "trtllm-bench states no requests: give the same lengths and concurrency by flags"
    return Measurement(tool=TOOL, source=source, metrics=found, notes=(note,))
