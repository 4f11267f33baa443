"""AIPerf: profile_export.jsonl (a record a request) and profile_export_aiperf.json (metrics of the run)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simtool.calibration.validation.fields import counts, finite, known, listed, numbers, part, seconds, whole
from simtool.calibration.validation.measurement import ClientColumns, Measurement, client_measurement
from simtool.errors import InputError

TOOL = "AIPerf"
_MS = {"time_to_first_token": "ttft", "request_latency": "e2el", "inter_token_latency": "tpot"}
_RATES = {
    "request_throughput": "request_throughput",
    "output_token_throughput": "output_throughput",
    "total_token_throughput": "total_token_throughput",
    "request_count": "completed",
}
_KINDS = {"avg": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "std": "std"}


def read_records(records: Sequence[Mapping[str, Any]], source: str, summary: Mapping[str, Any]) -> Measurement:
    """The run by its records. summary: the run's metrics file where there is one ({}: none), for its concurrency."""
    wanted = [record for record in records if part(record, "metadata").get("benchmark_phase") != "warmup"]
    done = [record for record in wanted if not record.get("error") and part(record, "metrics")]
    if not done:
        raise InputError(source, "completed no request", "a run in which every request failed cannot be compared")
    columns = ClientColumns(
        sent_s=numbers(
            (finite(part(record, "metadata").get("request_start_ns")) * 1e-9 for record in done), "start time", source
        ),
        ttft_s=numbers((_time(record, "time_to_first_token", source) for record in done), "TTFT", source),
        e2e_s=numbers((_time(record, "request_latency", source) for record in done), "request latency", source),
        input_tokens=counts((_count(record, "input_sequence_length") for record in done), "input tokens", source),
        output_tokens=counts((_count(record, "output_sequence_length") for record in done), "output tokens", source),
    )
    return client_measurement(
        TOOL,
        source,
        columns,
        stated={},
        max_concurrency=_concurrency(summary, source),
        failed=len(wanted) - len(done),
    )


def read_summary(document: Mapping[str, Any], source: str) -> Measurement:
    """The run's metrics, each with its unit. Raises InputError for a run without a completed request."""
    found: dict[str, object] = {ours: part(document, theirs).get("avg") for theirs, ours in _RATES.items()}
    if finite(found["completed"]) == 0:
        raise InputError(source, "completed no request", "a run in which every request failed cannot be compared")
    for theirs, ours in _MS.items():
        summary = part(document, theirs)
        for kind, name in _KINDS.items():
            if kind in summary:
                found[f"{name}_{ours}_ms"] = 1e3 * seconds(summary[kind], summary.get("unit"), source)
    lasted = part(document, "benchmark_duration")
    if lasted:
        found["duration"] = seconds(lasted.get("avg"), lasted.get("unit"), source)
    metrics = known(found)
    if not metrics.keys() - {"completed", "duration"}:
        raise InputError(source, "states no metric that this reader knows", "give AIPerf's profile_export.jsonl")
    note = "the file keeps no requests (profile_export.jsonl does), so that only its own metrics are compared"
    return Measurement(tool=TOOL, source=source, metrics=metrics, notes=(note,))


def _time(record: Mapping[str, Any], tag: str, source: str) -> float:
    value = part(record, "metrics", tag)
    return seconds(value.get("value"), value.get("unit"), source) if value else float("nan")


def _count(record: Mapping[str, Any], tag: str) -> object:
    return part(record, "metrics", tag).get("value")


def _concurrency(summary: Mapping[str, Any], source: str) -> int:
    """The run's concurrency, where it is a closed loop and the file says so."""
    settings = part(summary, "input_config")
    phases = [phase for phase in listed(settings, "phases") if isinstance(phase, Mapping)]
    closed = [phase for phase in phases if phase.get("type") == "concurrency" and phase.get("name") != "warmup"]
    load = closed[-1] if closed else part(settings, "loadgen")  # loadgen: AIPerf before 0.10
    return 0 if load.get("request_rate") else whole(load.get("concurrency"), "concurrency", source)
