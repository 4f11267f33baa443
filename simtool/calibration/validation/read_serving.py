"""`vllm bench serve`, TensorRT-LLM's benchmark_serving.py (its fork) and SGLang's bench_serving: lists by request.

All three state the same lists (input_lens, output_lens, ttfts, itls); only newer vLLM says when requests were sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.validation.fields import column, counts, finite, known, numbers, whole
from simtool.calibration.validation.measurement import ClientColumns, Measurement, client_measurement
from simtool.errors import InputError
from simtool.traces import arrivals

# SGLang's own names (sglang 0.5, bench_serving.py) -> vLLM's
_RENAMED = {"total_throughput": "total_token_throughput"} | {
    f"{kind}_e2e_latency_ms": f"{kind}_e2el_ms" for kind in ("mean", "median", "std", "p90", "p95", "p99")
}
_COUNTS = ("completed", "failed", "total_input_tokens", "total_output_tokens")
_RATES = ("request_throughput", "output_throughput", "total_token_throughput", "duration")
_LATENCIES = tuple(f"_{name}_ms" for name in ("ttft", "tpot", "itl", "e2el"))
_SEED = 0  # of arrivals that the file states only as a rate


def read_serving(document: Mapping[str, Any], source: str, tool: str) -> Measurement:
    """The run that the file states. Raises InputError for a run that completed nothing or lists that do not fit."""
    document = {_RENAMED.get(key, key): value for key, value in document.items()}
    stated = known({key: value for key, value in document.items() if key in (*_COUNTS, *_RATES) or _latency(key)})
    if stated.get("completed") == 0:
        raise InputError(source, "completed no request", "a run in which every request failed cannot be compared")
    if not stated:
        raise InputError(source, f"states no metric of {tool}", "the file may be damaged")
    if not isinstance(document.get("input_lens"), list):
        note = "the file has no lists by request, so that only its own metrics are compared"
        return Measurement(tool=tool, source=source, metrics=stated, notes=(note,))
    columns, failed = _columns(document, source)
    limit = whole(document.get("max_concurrency"), "max_concurrency", source)
    guessed, notes = (None, ()) if limit or columns.sent_s is not None else _guessed(document, len(columns.ttft_s))
    return client_measurement(
        tool,
        source,
        columns,
        stated=stated,
        max_concurrency=limit,
        arrival_s=guessed,
        notes=notes,
        failed=failed,
    )


def _latency(key: str) -> bool:
    return key.endswith(_LATENCIES)


def _columns(document: Mapping[str, Any], source: str) -> tuple[ClientColumns, int]:
    """(columns of completed requests, how many failed)."""
    inputs = counts(column(document, "input_lens", source), "input tokens", source)
    rows = len(inputs)
    outputs = counts(column(document, "output_lens", source, rows=rows), "output tokens", source)
    ttft_s = numbers(column(document, "ttfts", source, rows=rows), "TTFT", source)
    gaps = [_gaps(values, row, source) for row, values in enumerate(column(document, "itls", source, rows=rows))]
    sent_s = None
    if document.get("start_times"):
        sent_s = numbers(column(document, "start_times", source, rows=rows), "start time", source)
    done = (outputs > 0) & (ttft_s > 0)
    if not done.any():
        raise InputError(source, "completed no request", "a run in which every request failed cannot be compared")
    decode_s = np.array([values.sum() for values in gaps])
    columns = ClientColumns(
        sent_s=None if sent_s is None else sent_s[done],
        ttft_s=ttft_s[done],
        e2e_s=(ttft_s + decode_s)[done],
        input_tokens=inputs[done],
        output_tokens=outputs[done],
        gaps_s=np.concatenate([values for values, kept in zip(gaps, done, strict=True) if kept]),
    )
    return columns, int(np.count_nonzero(~done))


def _gaps(values: object, row: int, source: str) -> NDArray[np.float64]:
    """Inter-token gaps of one request."""
    if not isinstance(values, list):
        raise InputError(source, f"request {row} has no list of inter-token latencies", "the file may be damaged")
    gaps_s = numbers(values, f"inter-token latency in request {row}", source)
    if len(gaps_s) and gaps_s.min() < 0:
        raise InputError(source, f"request {row} has an inter-token latency of {gaps_s.min():g} s")
    return gaps_s


def _guessed(document: Mapping[str, Any], rows: int) -> tuple[NDArray[np.float64] | None, tuple[str, ...]]:
    """Arrivals of a file without send times: at once for an infinite rate, Poisson for a finite one; None: unknown."""
    rate = document.get("request_rate")
    if rate in ("inf", "Infinity", None, float("inf")):
        return np.zeros(rows), ()
    if not finite(rate) > 0:
        return None, ("the file does not say when requests were sent",)
    note = f"the file does not say when requests were sent: Poisson arrivals at its {rate:g} requests/s, seed {_SEED}"
    return arrivals(rows, float(finite(rate)), 1.0, np.random.default_rng(_SEED)), (note,)
