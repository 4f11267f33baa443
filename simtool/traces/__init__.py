"""Workloads: read from trace files, made by a generator, transformed, inspected."""

from simtool.traces.arrivals import arrivals
from simtool.traces.inspection import inspect_workload, shared_prefix_tokens
from simtool.traces.lengths import Lengths, parse_lengths
from simtool.traces.reading import READERS, TraceFormat, read_trace, trace_lines, write_trace
from simtool.traces.sessions import Sessions, SharedPrefixes
from simtool.traces.synthesis import synthesise
from simtool.traces.transform import (
    clip_to_context,
    drop_beyond_context,
    first_requests,
    fit_context,
    mean_rate,
    retime,
    scale_to_rate,
    subsample,
    time_scale,
    with_samples,
    with_warmup,
)

__all__ = [
    "READERS",
    "Lengths",
    "Sessions",
    "SharedPrefixes",
    "TraceFormat",
    "arrivals",
    "clip_to_context",
    "drop_beyond_context",
    "first_requests",
    "fit_context",
    "inspect_workload",
    "mean_rate",
    "parse_lengths",
    "read_trace",
    "retime",
    "scale_to_rate",
    "shared_prefix_tokens",
    "subsample",
    "synthesise",
    "time_scale",
    "trace_lines",
    "with_samples",
    "with_warmup",
    "write_trace",
]
