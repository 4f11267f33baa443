"""Metrics: each defined once, as vLLM's serving benchmark defines it, as functions of a Result's columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.offload_use import OffloadUse
from simtool.slo_text import parse_limits
from simtool.summaries import PERCENTILES, histogram_summary, latency_summary, per_second_peaks
from simtool.vllm_text import result_json, vllm_block

__all__ = [
    "LATENCIES",
    "MIN_TAIL_SAMPLES",
    "PERCENTILES",
    "RequestLatencies",
    "Result",
    "Slo",
    "flagged_percentiles",
    "littles_law_gap",
    "meets_slo",
    "parse_slo",
    "request_latencies",
    "result_json",
    "serving_metrics",
    "slo_attainment",
    "slo_attainment_by",
    "vllm_block",
]

LATENCIES = ("ttft", "tpot", "itl", "e2el")
MIN_TAIL_SAMPLES = 10  # a percentile with fewer requests beyond it is flagged


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Per-request limits in seconds (0: none) and the share of requests that must meet all of them."""

    ttft_s: float = 0.0
    tpot_s: float = 0.0
    e2e_s: float = 0.0
    attainment: float = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One simulated (or measured) run. Columns of shape [n], in request order.

    sent_s, first_token_s, finish_s: seconds on the run's clock (NaN: refused, the prompt can never fit).
    scheduled_s: first time in a step. cached_tokens: prompt tokens found in the prefix cache. replica: which one.
    preemptions: how often the request was preempted.
    itl_bins float64[b+1], itl_counts float64[b]: weighted histogram of all inter-token gaps (0.5% wide bins).
    steps: columns of step (or leap) records by name, empty unless asked for: replica, start_s, end_s, iterations,
    prefill_tokens, decode_requests, kv_blocks, waiting, running.
    energy_j, busy_s, num_steps, devices: of the whole cluster; busy_s adds up each replica's seconds in a step.
    kv_blocks: capacity of each replica. offload: what offloaded experts did (None: there were none).
    """

    sent_s: NDArray[np.float64]
    scheduled_s: NDArray[np.float64]
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    input_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    cached_tokens: NDArray[np.int32]
    replica: NDArray[np.int32]
    preemptions: NDArray[np.int32]
    itl_bins: NDArray[np.float64]
    itl_counts: NDArray[np.float64]
    steps: dict[str, NDArray[np.float64]]
    energy_j: float
    busy_s: float
    num_steps: int
    devices: int
    kv_blocks: tuple[int, ...]
    warmup_requests: int = 0
    offload: OffloadUse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLatencies:
    """Seconds of each counted request, float64[n]; NaN where the request failed.

    tpot_s is NaN for an answer of one token, which has no time per output token. counted: which rows of the Result.
    """

    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    e2e_s: NDArray[np.float64]
    counted: slice


def request_latencies(result: Result) -> RequestLatencies:
    """TTFT, TPOT = (E2E - TTFT) / (n - 1) and E2E of the requests after the warm-up."""
    counted = slice(result.warmup_requests, None)
    ttft_s = result.first_token_s[counted] - result.sent_s[counted]
    e2e_s = result.finish_s[counted] - result.sent_s[counted]
    gaps = (result.output_tokens[counted] - 1).astype(np.float64)
    tpot_s = np.divide(e2e_s - ttft_s, gaps, out=np.full(len(gaps), np.nan), where=gaps > 0)
    return RequestLatencies(ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=e2e_s, counted=counted)


def serving_metrics(result: Result, slo: Slo | None = None) -> dict[str, float]:
    """Every metric of docs/metrics.md under vLLM's JSON key (or ours where vLLM has none), of the counted requests.

    Refused requests (finish NaN) are `failed`. A latency that no request has is NaN. Without an Slo the goodput is
    the throughput of completed requests.
    """
    slo = slo or Slo()
    latencies = request_latencies(result)
    done = np.isfinite(result.finish_s[latencies.counted])
    inputs, outputs = (column[latencies.counted] for column in (result.input_tokens, result.output_tokens))
    good = _meets(latencies, slo)["all"]
    duration_s = _duration_s(result, latencies.counted)
    per_s = 1.0 / duration_s if duration_s > 0 else math.nan
    input_total, output_total = float(inputs[done].sum(dtype=np.int64)), float(outputs[done].sum(dtype=np.int64))
    metrics = {
        "duration": duration_s,
        "completed": float(np.count_nonzero(done)),
        "failed": float(np.count_nonzero(~done)),
        "total_input_tokens": input_total,
        "total_output_tokens": output_total,
        "request_throughput": float(np.count_nonzero(done)) * per_s,
        "request_goodput": float(np.count_nonzero(good)) * per_s,
        "output_throughput": output_total * per_s,
        "total_token_throughput": (input_total + output_total) * per_s,
    }
    metrics |= _peaks(result, latencies.counted)
    metrics |= latency_summary("ttft", latencies.ttft_s) | latency_summary("tpot", latencies.tpot_s)
    metrics |= _itl_summary(result, latencies) | latency_summary("e2el", latencies.e2e_s)
    metrics["slo_attainment"] = float(good.mean()) if len(good) else math.nan
    return metrics | _cluster_metrics(result, metrics["output_throughput"]) | _offload_metrics(result.offload)


def _offload_metrics(use: OffloadUse | None) -> dict[str, float]:
    """Of the whole run; none where no expert is offloaded."""
    if use is None:
        return {}
    return {
        "expert_hit_rate": use.hit_rate,
        "expert_stall_share": use.stalled_share,
        "host_link_share": use.link_share,
    }


def _duration_s(result: Result, counted: slice) -> float:
    """From the first counted request sent to the last counted finish; 0 when nothing finished."""
    finish_s = result.finish_s[counted]
    finish_s = finish_s[np.isfinite(finish_s)]
    return float(finish_s.max() - result.sent_s[counted].min()) if len(finish_s) else 0.0


def _itl_summary(result: Result, latencies: RequestLatencies) -> dict[str, float]:
    """Inter-token latency: the mean is exact, spread and percentiles come from the 0.5% histogram of all gaps.

    The histogram covers the whole run, warm-up included.
    """
    summary = histogram_summary("itl", result.itl_bins, result.itl_counts)
    gaps_s = latencies.e2e_s - latencies.ttft_s
    done = np.isfinite(gaps_s)
    count = float((result.output_tokens[latencies.counted][done] - 1).sum(dtype=np.int64))
    return summary | {"mean_itl_ms": float(gaps_s[done].sum()) * 1e3 / count} if count else summary


def _peaks(result: Result, counted: slice) -> dict[str, float]:
    """Peaks over whole seconds from the first send, of the completed requests."""
    done = np.isfinite(result.finish_s[counted])
    sent_s, first_s, finish_s = (
        column[counted][done] for column in (result.sent_s, result.first_token_s, result.finish_s)
    )
    return per_second_peaks(sent_s, first_s, finish_s, result.output_tokens[counted][done])


def _cluster_metrics(result: Result, output_throughput: float) -> dict[str, float]:
    """Metrics of the whole run (warm-up included) that vLLM does not print."""
    done = np.isfinite(result.finish_s)
    makespan_s = float(result.finish_s[done].max() - result.sent_s.min()) if done.any() else 0.0
    outputs = float(result.output_tokens[done].sum(dtype=np.int64))
    prompts = float(result.input_tokens[done].sum(dtype=np.int64))
    replicas = max(1, len(result.kv_blocks))
    metrics = {
        "output_throughput_per_gpu": output_throughput / result.devices if result.devices else math.nan,
        "energy_j_per_output_token": result.energy_j / outputs if outputs else math.nan,
        "gpu_utilization": result.busy_s / (replicas * makespan_s) if makespan_s > 0 else math.nan,
        "preemptions": float(result.preemptions.sum(dtype=np.int64)),
        "prefix_hit_rate": float(result.cached_tokens[done].sum(dtype=np.int64)) / prompts if prompts else math.nan,
        "num_steps": float(result.num_steps),
        "peak_kv_usage": math.nan,
    }
    if len(result.steps.get("kv_blocks", ())) and len(result.kv_blocks):
        capacity = np.asarray(result.kv_blocks, np.float64)[result.steps["replica"].astype(np.int64)]
        metrics["peak_kv_usage"] = float(np.max(result.steps["kv_blocks"] / np.maximum(capacity, 1.0)))
    return metrics


def flagged_percentiles(result: Result) -> tuple[str, ...]:
    """Keys of percentiles with fewer than MIN_TAIL_SAMPLES requests (gaps for ITL) beyond them: not to be trusted."""
    latencies = request_latencies(result)
    samples = {
        "ttft": float(np.count_nonzero(np.isfinite(latencies.ttft_s))),
        "tpot": float(np.count_nonzero(np.isfinite(latencies.tpot_s))),
        "itl": float(result.itl_counts.sum()),
        "e2el": float(np.count_nonzero(np.isfinite(latencies.e2e_s))),
    }
    # 1000 requests leave 10 beyond p99: the tiny slack keeps rounding from flagging exactly that.
    return tuple(
        f"p{percent}_{name}_ms"
        for name in LATENCIES
        for percent in PERCENTILES
        if samples[name] * (100 - percent) / 100 < MIN_TAIL_SAMPLES - 1e-9
    )


def _meets(latencies: RequestLatencies, slo: Slo) -> dict[str, NDArray[np.bool_]]:
    """Which requests meet each limit that is set, and `all` of them; a failed request meets none."""
    done = np.isfinite(latencies.e2e_s)
    met = {"all": done.copy()}
    limits = (("ttft", slo.ttft_s, latencies.ttft_s), ("e2el", slo.e2e_s, latencies.e2e_s))
    for name, limit_s, column_s in (*limits, ("tpot", slo.tpot_s, np.nan_to_num(latencies.tpot_s))):
        if limit_s > 0:
            with np.errstate(invalid="ignore"):
                met[name] = done & (column_s <= limit_s)
            met["all"] &= met[name]
    return met


def slo_attainment(result: Result, slo: Slo) -> float:
    """Share of the counted requests that meet every limit; failed ones do not; NaN without requests."""
    return slo_attainment_by(result, slo)["all"]


def slo_attainment_by(result: Result, slo: Slo) -> dict[str, float]:
    """Attainment of each limit that is set (`ttft`, `tpot`, `e2el`) and of `all` together."""
    met = _meets(request_latencies(result), slo)
    return {name: float(rows.mean()) if len(rows) else math.nan for name, rows in met.items()}


def meets_slo(result: Result, slo: Slo) -> bool:
    """Whether at least the Slo's share of the counted requests meets every limit."""
    return slo_attainment(result, slo) >= slo.attainment


def parse_slo(text: str, attainment: float = 0.99) -> Slo:
    """The Slo of `ttft:1000,tpot:50` (milliseconds as in vLLM's --goodput, or with a unit: `ttft:1s tpot:50ms`).

    Keys: ttft, tpot, e2el. Raises InputError for an unknown or doubled key and for what is no time in ms.
    """
    limits = parse_limits(text, attainment)
    return Slo(ttft_s=limits["ttft"], tpot_s=limits["tpot"], e2e_s=limits["e2el"], attainment=attainment)


def littles_law_gap(result: Result) -> float:
    """Relative difference of L and lambda x W, W the mean E2E and L the time average of requests in flight.

    Both are taken over the span from first send to last finish, in which everything sent has finished, so that the
    law holds exactly; L is integrated from the events, independently of the latencies.
    """
    done = np.isfinite(result.finish_s)
    sent_s, finish_s = result.sent_s[done], result.finish_s[done]
    span_s = float(finish_s.max() - sent_s.min())
    times_s = np.concatenate([sent_s, finish_s])
    order = np.argsort(times_s, kind="stable")
    steps = np.concatenate([np.ones(len(sent_s)), -np.ones(len(finish_s))])[order]
    in_flight = np.cumsum(steps)[:-1]
    area = float(in_flight @ np.diff(times_s[order]))
    product = len(sent_s) / span_s * float((finish_s - sent_s).mean())
    return abs(area / span_s - product) / product
