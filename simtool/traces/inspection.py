"""inspect_workload: what `simtool trace` says about a workload."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.traces.rows import session_root
from simtool.traces.transform import mean_rate
from simtool.workload import Workload

QUANTILES = (50, 90, 99)


def inspect_workload(workload: Workload) -> dict[str, float | int | str | None]:
    """Counts, rates, burstiness, length quantiles and prefix reuse of a workload, by name (unit in the name).

    Rates are None when all requests arrive at once. interarrival_cv: 1 for a Poisson process. shared_prefix_share:
    prompt tokens whose prefix block an earlier request had, by all prompt tokens: the hit rate of an endless cache.
    """
    arrival_s, inputs, outputs = workload.arrival_s, workload.input_tokens, workload.output_tokens
    duration_s = float(arrival_s[-1] - arrival_s[0])
    rate = mean_rate(workload) if duration_s > 0 else None
    facts: dict[str, float | int | str | None] = {
        "source": workload.source,
        "requests": workload.num_requests,
        "duration_s": duration_s,
        "request_rate_per_s": rate,
        "interarrival_cv": _variation(np.diff(arrival_s)),
        "input_tokens": int(inputs.sum(dtype=np.int64)),
        "output_tokens": int(outputs.sum(dtype=np.int64)),
        "input_tokens_per_s": rate * float(inputs.mean()) if rate else None,
        "output_tokens_per_s": rate * float(outputs.mean()) if rate else None,
    }
    for name, column in (("input", inputs), ("output", outputs)):
        facts |= _length_facts(name, column)
    shared = shared_prefix_tokens(workload)
    return facts | {
        "max_context_tokens": int((inputs.astype(np.int64) + outputs).max()),
        "shared_prefix_share": float(shared.sum() / inputs.sum(dtype=np.int64)),
        "prefix_block_tokens": workload.prefix_block_tokens if len(workload.prefix_ids) else None,
        "sessions": int(np.count_nonzero(session_root(workload) == np.arange(workload.num_requests))),
        "priorities": len(np.unique(workload.priority)) if len(workload.priority) else 1,
        "max_concurrency": workload.max_concurrency,
        "warmup_requests": workload.warmup_requests,
    }


def shared_prefix_tokens(workload: Workload) -> NDArray[np.int64]:
    """Prompt tokens of each request in prefix blocks that an earlier request already had, int64[n]."""
    if not len(workload.prefix_ids):
        return np.zeros(workload.num_requests, np.int64)
    first = np.full(int(workload.prefix_ids.max()) + 1, -1, np.int64)
    # Written backwards, so that the first occurrence is what stays.
    first[workload.prefix_ids[::-1]] = np.arange(len(workload.prefix_ids) - 1, -1, -1)
    seen = first[workload.prefix_ids] != np.arange(len(workload.prefix_ids))
    hits = np.concatenate([np.zeros(1, np.int64), np.cumsum(seen)])
    return np.diff(hits[workload.prefix_offsets]) * workload.prefix_block_tokens


def _length_facts(name: str, column: NDArray[np.int32]) -> dict[str, float | int | str | None]:
    """Mean, quantiles and maximum of one length column."""
    facts: dict[str, float | int | str | None] = {f"mean_{name}_tokens": float(column.mean())}
    for quantile, value in zip(QUANTILES, np.percentile(column, QUANTILES), strict=True):
        facts[f"p{quantile}_{name}_tokens"] = float(value)
    return facts | {f"max_{name}_tokens": int(column.max())}


def _variation(gaps: NDArray[np.float64]) -> float | None:
    """Standard deviation by mean of the gaps between arrivals; None without gaps."""
    return float(gaps.std() / gaps.mean()) if len(gaps) and gaps.mean() > 0 else None
