"""Measurement: a run that somebody measured, in the simulator's words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.execution import Execution
from simtool.errors import InputError
from simtool.measured import itl_histogram
from simtool.metrics import Result, serving_metrics
from simtool.workload import Workload, make_workload

F8 = NDArray[np.float64]
I4 = NDArray[np.int32]

_DAMAGED = "the file may be damaged"
LONGEST_S = 3e6  # five weeks: metrics count every second of a run, and no benchmark lasts so long

# metrics that need to know when requests were sent
OVER_TIME = (
    *("duration", "request_throughput", "request_goodput", "output_throughput", "total_token_throughput"),
    *("max_output_tokens_per_s", "max_concurrent_requests", "output_throughput_per_gpu"),
)


# metrics of a Result that a client cannot see
INSIDE = (
    "preemptions",
    "prefix_hit_rate",
    "num_steps",
    "gpu_utilization",
    "peak_kv_usage",
    "energy_j_per_output_token",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """tool: who measured. metrics: by vLLM's keys. result: per request (None: only metrics are known).

    workload: the requests as the file states them (None: it does not). engine: scenario keys of the engine that the
    file states. execution: where our executor measured, with its steps.
    """

    tool: str
    source: str
    metrics: Mapping[str, float]
    result: Result | None = None
    workload: Workload | None = None
    execution: Execution | None = None
    engine: Mapping[str, int | bool] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientColumns:
    """What a client saw of each completed request: seconds [n] and token counts [n].

    sent_s: None where the file does not say when requests were sent. gaps_s: all inter-token gaps (empty: not known).
    """

    sent_s: F8 | None
    ttft_s: F8
    e2e_s: F8
    input_tokens: I4
    output_tokens: I4
    gaps_s: F8 = field(default_factory=lambda: np.empty(0))


def client_measurement(
    tool: str,
    source: str,
    columns: ClientColumns,
    *,
    stated: Mapping[str, float],
    max_concurrency: int = 0,
    arrival_s: F8 | None = None,
    notes: Sequence[str] = (),
    failed: int = 0,
    engine: Mapping[str, int | bool] | None = None,
) -> Measurement:
    """From a client's columns; the metrics that the file states come before those that the columns give.

    arrival_s: when requests come where the file does not say when they were sent. max_concurrency: a closed loop, where
    that needs no answer. Raises InputError for a run without a completed request and for columns that do not fit.
    """
    rows = len(columns.ttft_s)
    columns = _from_first(columns)
    check_columns(columns, source)
    sent_s = np.zeros(rows) if columns.sent_s is None else columns.sent_s
    result = _result(columns, sent_s, np.argsort(sent_s, kind="stable"))
    hidden = INSIDE if columns.sent_s is not None else (*INSIDE, *OVER_TIME)
    metrics = {
        key: value for key, value in serving_metrics(result).items() if math.isfinite(value) and key not in hidden
    }
    if max_concurrency:
        arrival_s = np.zeros(rows)
    elif columns.sent_s is not None:
        arrival_s = result.sent_s
    return Measurement(
        tool=tool,
        source=source,
        metrics={**metrics, **stated},
        result=result,
        workload=None if arrival_s is None else _workload(result, arrival_s, max_concurrency, f"{source}: {tool}"),
        engine=engine or {},
        notes=(*notes, *([f"{failed} failed requests are left out"] if failed else [])),
    )


def _from_first(columns: ClientColumns) -> ClientColumns:
    """With send times that count from the first one: a client's clock starts anywhere."""
    if columns.sent_s is None or not len(columns.sent_s):
        return columns
    return replace(columns, sent_s=columns.sent_s - columns.sent_s.min())


def _workload(result: Result, arrival_s: F8, max_concurrency: int, source: str) -> Workload:
    return make_workload(
        arrival_s, result.input_tokens, result.output_tokens, max_concurrency=max_concurrency, source=source
    )


def check_columns(columns: ClientColumns, source: str) -> None:
    """Raise InputError for no request, columns of unlike lengths, times that are none, or requests without tokens."""
    if not len(columns.ttft_s):
        raise InputError(source, "completed no request", "a run in which every request failed cannot be compared")
    times = [("send", columns.sent_s), ("TTFT", columns.ttft_s), ("latency", columns.e2e_s)]
    for name, column in times:
        if column is None:
            continue
        if column.shape != columns.ttft_s.shape:
            raise InputError(source, f"its {name} times are not one a request", _DAMAGED)
        bad = np.flatnonzero(~((column >= 0) & (column <= LONGEST_S)))
        if len(bad):
            rule = (
                f"request {bad[0]} has a {name} of {column[bad[0]]:g} s: times lie between 0 and {LONGEST_S:g} seconds"
            )
            raise InputError(source, rule)
    for name, tokens in (("input", columns.input_tokens), ("output", columns.output_tokens)):
        if tokens.shape != columns.ttft_s.shape:
            raise InputError(source, f"its {name} lengths are not one a request", _DAMAGED)
        if tokens.min() < 1:
            raise InputError(source, f"request {int(np.argmin(tokens))} has {tokens.min()} {name} tokens")


def check_run_times(workload: Workload, source: str) -> None:
    """Raise InputError for arrivals or think times that a run cannot have."""
    for name, column in (("arrives at", workload.arrival_s), ("thinks for", workload.think_s)):
        bad = np.flatnonzero(~((column >= 0) & (column <= LONGEST_S)))
        if len(bad):
            rule = f"request {bad[0]} {name} {column[bad[0]]:g} s"
            raise InputError(source, rule, f"times lie between 0 and {LONGEST_S:g} seconds")


def _result(columns: ClientColumns, sent_s: F8, order: NDArray[np.intp]) -> Result:
    """Columns in order of sending; what a client cannot see is NaN or 0."""
    rows = len(order)
    edges, counts = itl_histogram(columns.gaps_s)
    return Result(
        sent_s=sent_s[order],
        scheduled_s=np.full(rows, np.nan),
        first_token_s=(sent_s + columns.ttft_s)[order],
        finish_s=(sent_s + np.maximum(columns.e2e_s, columns.ttft_s))[order],
        input_tokens=columns.input_tokens[order],
        output_tokens=columns.output_tokens[order],
        cached_tokens=np.zeros(rows, np.int32),
        replica=np.zeros(rows, np.int32),
        preemptions=np.zeros(rows, np.int32),
        itl_bins=edges,
        itl_counts=counts,
        steps={},
        energy_j=math.nan,
        busy_s=math.nan,
        num_steps=0,
        devices=0,
        kv_blocks=(),
    )
