"""Summaries of columns: mean, deviation and percentiles of latencies and histograms, peaks over whole seconds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 90, 95, 99)

Seconds = NDArray[np.float64]


FEW = 20  # requests, below which a trend in their waiting says nothing


def overload_wait_s(sent_s: Seconds, scheduled_s: Seconds) -> float:
    """How long the last requests wait where they come faster than they are served; 0 where the engine keeps up.

    Overloaded: the last tenth to be sent waits, in the median, over 10% of the run's arrivals. Only waiting shows it:
    the tail that a finite run ends with lowers its throughput too. Arrays [n]; requests that were refused are NaN.
    """
    waited_s = scheduled_s - sent_s
    known = np.isfinite(waited_s)
    if np.count_nonzero(known) < FEW:
        return 0.0
    sent_s, waited_s = sent_s[known], waited_s[known]
    span_s = float(sent_s.max() - sent_s.min())
    wait_s = float(np.median(waited_s[sent_s >= np.quantile(sent_s, 0.9)]))
    return wait_s if 0 < 0.1 * span_s < wait_s else 0.0


def latency_summary(name: str, column_s: Seconds) -> dict[str, float]:
    """Mean, median, standard deviation and percentiles in ms, as numpy's (linear interpolation), NaNs left out."""
    known_ms = column_s[np.isfinite(column_s)] * 1e3
    if not len(known_ms):
        return dict.fromkeys(_keys(name), math.nan)
    tails = np.percentile(known_ms, PERCENTILES)
    values = (known_ms.mean(), tails[PERCENTILES.index(50)], known_ms.std(), *tails)
    return {key: float(value) for key, value in zip(_keys(name), values, strict=True)}


def _keys(name: str) -> list[str]:
    """The JSON keys of one latency."""
    return [f"{kind}_{name}_ms" for kind in ("mean", "median", "std", *(f"p{p}" for p in PERCENTILES))]


def histogram_summary(name: str, edges_s: Seconds, counts: NDArray[np.float64]) -> dict[str, float]:
    """The same keys from a weighted histogram (edges [b+1], counts [b]): exact to the width of a bin."""
    total = float(counts.sum())
    if total <= 0:
        return dict.fromkeys(_keys(name), math.nan)
    edges_ms = edges_s * 1e3
    middles_ms = 0.5 * (edges_ms[1:] + edges_ms[:-1])
    mean = float(middles_ms @ counts) / total
    deviation = math.sqrt(max(0.0, float((middles_ms - mean) ** 2 @ counts) / total))
    below = np.concatenate([np.zeros(1), np.cumsum(counts)])
    tails = [_percentile(edges_ms, below, percent) for percent in PERCENTILES]
    return dict(zip(_keys(name), (mean, tails[PERCENTILES.index(50)], deviation, *tails), strict=True))


def _percentile(edges: Seconds, below: NDArray[np.float64], percent: float) -> float:
    """The value below which `percent` of the weight lies, linear within its bin; below: cumulated weight [b+1]."""
    target = below[-1] * percent / 100
    upper = max(1, min(int(np.searchsorted(below, target, side="left")), len(below) - 1))
    weight = below[upper] - below[upper - 1]
    share = (target - below[upper - 1]) / weight if weight > 0 else 0.0
    return float(edges[upper - 1] + share * (edges[upper] - edges[upper - 1]))


def per_second_peaks(
    sent_s: Seconds, first_s: Seconds, finish_s: Seconds, output_tokens: NDArray[np.int32]
) -> dict[str, float]:
    """Peaks over whole seconds from the first send, as vLLM's benchmark counts them.

    A request is concurrent in every second that it touches. Tokens after the first are spread evenly from first
    token to finish (vLLM has each token's time; a Result does not keep them).
    """
    if not len(sent_s):
        return {"max_output_tokens_per_s": math.nan, "max_concurrent_requests": 0.0}
    origin_s = sent_s.min()
    sent_s, first_s, finish_s = sent_s - origin_s, first_s - origin_s, finish_s - origin_s
    seconds = int(finish_s.max()) + 2
    change = np.bincount(sent_s.astype(np.int64), minlength=seconds)
    change -= np.bincount(finish_s.astype(np.int64) + 1, minlength=seconds)
    tokens = _tokens_per_second(first_s, finish_s, (output_tokens - 1).astype(np.float64), seconds)
    return {
        "max_output_tokens_per_s": float(tokens.max()),
        "max_concurrent_requests": float(np.cumsum(change).max()),
    }


def _tokens_per_second(first_s: Seconds, finish_s: Seconds, later: NDArray[np.float64], seconds: int) -> Seconds:
    """Tokens of each second: one at first_s, `later` ones evenly until finish_s."""
    tokens = np.bincount(first_s.astype(np.int64), minlength=seconds).astype(np.float64)
    lasting = finish_s > first_s
    rate = later[lasting] / (finish_s - first_s)[lasting]
    ramps = _ramps(first_s[lasting], rate, seconds) - _ramps(finish_s[lasting], rate, seconds)
    tokens += np.diff(ramps)
    return tokens + np.bincount(finish_s[~lasting].astype(np.int64), weights=later[~lasting], minlength=seconds)


def _ramps(start_s: Seconds, slope: NDArray[np.float64], seconds: int) -> Seconds:
    """Sum of slope * max(0, t - start) at t = 0, 1, .. seconds, by whole second: no sort is needed."""
    second = start_s.astype(np.int64)
    slopes = np.cumsum(np.bincount(second, weights=slope, minlength=seconds))
    moments = np.cumsum(np.bincount(second, weights=slope * start_s, minlength=seconds))
    ramps: Seconds = np.zeros(seconds + 1)
    ramps[1:] = slopes * np.arange(1, seconds + 1) - moments
    return ramps
