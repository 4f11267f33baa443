"""GuideLLM's benchmarks.json (0.3 to 0.8): `benchmarks[]`, each with its requests by status and its strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simtool.calibration.validation.fields import counts, finite, known, listed, numbers, part, whole
from simtool.calibration.validation.measurement import ClientColumns, Measurement, client_measurement
from simtool.errors import InputError

TOOL = "GuideLLM"
_MS = {
    "time_to_first_token_ms": "ttft",
    "inter_token_latency_ms": "tpot",
}  # its ITL is a request's (E2E - TTFT)/(n - 1)
_RATES = {
    "requests_per_second": "request_throughput",
    "output_tokens_per_second": "output_throughput",
    "tokens_per_second": "total_token_throughput",
}


def read_guidellm(document: Mapping[str, Any], source: str, number: int) -> Measurement:
    """Benchmark `number` (from 1; 0: the only one). Raises InputError for several without a number."""
    several = listed(document, "benchmarks")
    if not several or not all(isinstance(one, Mapping) for one in several):
        raise InputError(source, "has no list of benchmarks", "give the JSON that guidellm benchmark wrote")
    if (number == 0 and len(several) > 1) or number > len(several):
        raise InputError(source, f"holds {len(several)} benchmarks", f"name one: {source}#1 … #{len(several)}")
    benchmark = several[max(number, 1) - 1]
    requests = part(benchmark, "requests")
    done, failed = requests.get("successful"), len(listed(requests, "errored"))
    if not isinstance(done, list) or not done:
        return _aggregate(benchmark, source)
    if not all(isinstance(request, Mapping) for request in done):
        raise InputError(source, "its requests must be objects", "the file may be damaged")
    return client_measurement(
        TOOL,
        source,
        _columns(done, source),
        stated={},
        max_concurrency=_concurrency(benchmark, source),
        failed=failed,
        notes=_incomplete(requests),
    )


def _columns(done: list[Mapping[str, Any]], source: str) -> ClientColumns:
    sent_s = numbers((r.get("request_start_time", r.get("start_time")) for r in done), "request_start_time", source)
    latency_s = numbers((r.get("request_latency") for r in done), "request_latency", source)
    ttft_ms = numbers((r.get("time_to_first_token_ms") for r in done), "time_to_first_token_ms", source)
    return ClientColumns(
        sent_s=sent_s,
        ttft_s=ttft_ms * 1e-3,
        e2e_s=latency_s,
        input_tokens=counts((r.get("prompt_tokens") for r in done), "prompt_tokens", source),
        output_tokens=counts((r.get("output_tokens") for r in done), "output_tokens", source),
    )


def _concurrency(benchmark: Mapping[str, Any], source: str) -> int:
    """Streams of a closed loop (strategies `concurrent` and `synchronous`); 0 for those with arrivals."""
    for place in (
        part(benchmark, "config", "strategy"),
        part(benchmark, "args", "strategy"),
        part(benchmark, "scheduler"),
    ):
        kind = place.get("type_")
        if kind == "synchronous":
            return 1
        if kind == "concurrent":
            return whole(place.get("streams", place.get("max_concurrency")), "its number of streams", source)
    return 0


def _incomplete(requests: Mapping[str, Any]) -> tuple[str, ...]:
    count = len(listed(requests, "incomplete"))
    return (f"{count} requests were cut off by the end of the run and are left out",) if count else ()


def _aggregate(benchmark: Mapping[str, Any], source: str) -> Measurement:
    """The benchmark's own distributions, where it keeps no requests."""
    metrics = part(benchmark, "metrics")
    found: dict[str, object] = {"duration": benchmark.get("duration")}
    for theirs, ours in _RATES.items():
        found[ours] = part(metrics, theirs, "successful").get("mean")
    for theirs, ours in _MS.items():
        found |= _distribution(part(metrics, theirs, "successful"), ours, 1.0)
    found |= _distribution(part(metrics, "request_latency", "successful"), "e2el", 1e3)
    totals = finite(part(metrics, "request_totals").get("successful"))
    if totals == 0:
        raise InputError(source, "completed no request", "a run in which every request failed cannot be compared")
    stated = known({**found, "completed": totals})
    if not stated.keys() - {"completed", "duration"}:
        raise InputError(source, "has neither requests nor metrics of them", "the file may be damaged")
    note = "the file keeps no requests, so that only its own metrics are compared"
    return Measurement(tool=TOOL, source=source, metrics=stated, notes=(note,))


def _distribution(summary: Mapping[str, Any], name: str, to_ms: float) -> dict[str, object]:
    values = {"mean": summary.get("mean"), "median": summary.get("median"), **{
        kind: part(summary, "percentiles").get(kind) for kind in ("p50", "p90", "p95", "p99")
    }}  # fmt: skip
    return {f"{kind}_{name}_ms": finite(value) * to_ms for kind, value in values.items()}
