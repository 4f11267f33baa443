"""Metrics as `vllm bench serve` shows and saves them, line for line and key for key, so that runs can be diffed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from simtool.metrics import Result

WIDTH = 50
COUNTS = (
    "completed",
    "failed",
    "total_input_tokens",
    "total_output_tokens",
    "max_concurrent_requests",
    "preemptions",
    "num_steps",
)
TITLES = {
    "ttft": "Time to First Token",
    "tpot": "Time per Output Token (excl. 1st token)",
    "itl": "Inter-token Latency",
    "e2el": "End-to-end Latency",
}


def vllm_block(
    metrics: Mapping[str, float],
    *,
    request_rate: float = math.inf,
    max_concurrency: int = 0,
    goodput: bool = False,
    latencies: Sequence[str] = ("ttft", "tpot", "itl"),
    percentiles: Sequence[int] = (99,),
) -> str:
    """The console block of `vllm bench serve` (vllm/benchmarks/serve.py), without a final newline.

    The lines for the concurrency limit, the configured rate and the goodput appear only where they apply, as there.
    """
    lines = [" Serving Benchmark Result ".center(WIDTH, "=")]
    lines.append(_count("Successful requests:", metrics["completed"]))
    lines.append(_count("Failed requests:", metrics["failed"]))
    if max_concurrency:
        lines.append(_count("Maximum request concurrency:", max_concurrency))
    if math.isfinite(request_rate):
        lines.append(_value("Request rate configured (RPS):", request_rate))
    lines.append(_value("Benchmark duration (s):", metrics["duration"]))
    lines.append(_count("Total input tokens:", metrics["total_input_tokens"]))
    lines.append(_count("Total generated tokens:", metrics["total_output_tokens"]))
    lines.append(_value("Request throughput (req/s):", metrics["request_throughput"]))
    if goodput:
        lines.append(_value("Request goodput (req/s):", metrics["request_goodput"]))
    lines.append(_value("Output token throughput (tok/s):", metrics["output_throughput"]))
    lines.append(_value("Peak output token throughput (tok/s):", metrics["max_output_tokens_per_s"]))
    lines.append(_value("Peak concurrent requests:", metrics["max_concurrent_requests"]))
    lines.append(_value("Total token throughput (tok/s):", metrics["total_token_throughput"]))
    for name in latencies:
        label = name.upper()
        lines.append(TITLES[name].center(WIDTH, "-"))
        lines.append(_value(f"Mean {label} (ms):", metrics[f"mean_{name}_ms"]))
        lines.append(_value(f"Median {label} (ms):", metrics[f"median_{name}_ms"]))
        lines += [_value(f"P{percent} {label} (ms):", metrics[f"p{percent}_{name}_ms"]) for percent in percentiles]
    lines.append("=" * WIDTH)
    return "\n".join(lines)


def _count(label: str, value: float) -> str:
    """A line with a whole number."""
    return f"{label:<40} {int(value):<10}"


def _value(label: str, value: float) -> str:
    """A line with two decimals."""
    return f"{label:<40} {value:<10.2f}"


def result_json(
    result: Result,
    metrics: Mapping[str, float],
    *,
    settings: Mapping[str, object] | None = None,
    save_detailed: bool = False,
) -> dict[str, object]:
    """The object that `vllm bench serve --save-result` writes: settings, metrics, and with save_detailed the columns.

    Counts are whole numbers; what is not known (NaN) is None, which JSON has. Detailed columns, one entry a counted
    request as in vLLM: input_lens, output_lens (0 for a failed request), ttfts, start_times (seconds), errors.
    vLLM's `itls` is left out: a Result keeps the histogram of the gaps, not each one (an execution adds it).
    """
    saved: dict[str, object] = dict(settings or {})
    saved["num_prompts"] = len(result.sent_s) - result.warmup_requests
    for key, value in metrics.items():
        if math.isnan(value):
            saved[key] = None
        else:
            saved[key] = int(value) if key in COUNTS else value
    if save_detailed:
        counted = slice(result.warmup_requests, None)
        done = np.isfinite(result.finish_s[counted])
        ttft_s = result.first_token_s[counted] - result.sent_s[counted]
        saved["input_lens"] = result.input_tokens[counted].tolist()
        saved["output_lens"] = np.where(done, result.output_tokens[counted], 0).tolist()
        saved["ttfts"] = _finite(ttft_s)
        saved["start_times"] = result.sent_s[counted].tolist()
        saved["errors"] = ["" if finished else "refused: the prompt can never fit" for finished in done.tolist()]
    return saved


def _finite(column_s: NDArray[np.float64]) -> list[float]:
    """Seconds, 0.0 where there are none, as vLLM writes a failed request."""
    return [float(value) for value in np.nan_to_num(column_s, nan=0.0)]
