"""Timeline: a run as Chrome trace JSON, which Perfetto and chrome://tracing open.

Process = replica, thread = its stream; step slices carry the category of PyTorch profiler's device work ("kernel" for
the step, "user_annotation" for the batch), so that simulated and measured traces load alike. Times are microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simtool.metrics import Result
from simtool.plan import Plan

_MAX_STEPS = 200_000  # slices; Perfetto stays quick, the file stays below 100 MB
_US = 1e6
_STREAM = 7  # PyTorch's usual compute stream, so that a measured trace lines up


def write_timeline(plan: Plan, result: Result, path: Path) -> None:
    """Write the step records of `result` (simulate with record_steps) and its requests to `path`."""
    events = list(timeline_events(plan, result))
    steps = len(result.steps.get("start_s", ()))
    about = {"model": plan.model, "cluster": plan.cluster, "steps": steps, "steps_shown": min(steps, _MAX_STEPS)}
    with path.open("w", encoding="utf-8") as out:
        out.write('{"displayTimeUnit":"ms","otherData":' + json.dumps(about) + ',"traceEvents":[\n')
        out.write(",\n".join(json.dumps(event, separators=(",", ":")) for event in events))
        out.write("\n]}\n")


def timeline_events(plan: Plan, result: Result) -> Iterator[dict[str, Any]]:
    """Trace events: names of processes and threads, one slice a step (or leap), counters of the scheduler."""
    yield from _names(plan, result)
    yield from _steps(result)
    yield from _requests(result)


def _names(plan: Plan, result: Result) -> Iterator[dict[str, Any]]:
    """Metadata: which process is which replica."""
    pools = [pool for pool in plan.pools for _ in range(pool.replicas)]
    for replica in range(max(len(result.kv_blocks), 1)):
        pool = pools[replica] if replica < len(pools) else plan.pools[-1]
        degrees = f"TP{pool.parallel.tp} PP{pool.parallel.pp} DP{pool.parallel.dp} EP{pool.parallel.ep}"
        label = f"replica {replica} ({pool.device}, {degrees})"
        yield {"ph": "M", "name": "process_name", "pid": replica, "args": {"name": label}}
        yield {"ph": "M", "name": "process_sort_index", "pid": replica, "args": {"sort_index": replica}}
        yield {"ph": "M", "name": "thread_name", "pid": replica, "tid": _STREAM, "args": {"name": f"stream {_STREAM}"}}


def _steps(result: Result) -> Iterator[dict[str, Any]]:
    """One slice a record; a leap of many iterations is one slice that says how many."""
    steps = result.steps
    for row in range(min(len(steps.get("start_s", ())), _MAX_STEPS)):
        at = {name: float(column[row]) for name, column in steps.items()}
        replica, start_us = int(at["replica"]), at["start_s"] * _US
        args = {
            name: at[name] for name in ("iterations", "prefill_tokens", "decode_requests", "kv_blocks") if name in at
        }
        kind = "prefill+decode" if at["prefill_tokens"] and at["decode_requests"] else None
        kind = kind or ("prefill" if at["prefill_tokens"] else "decode")
        yield {
            "ph": "X", "cat": "kernel", "name": f"step: {kind}", "pid": replica, "tid": _STREAM,
            "ts": round(start_us, 3), "dur": round(at["end_s"] * _US - start_us, 3), "args": args,
        }  # fmt: skip
        requests = {name: at[name] for name in ("waiting", "running") if name in at}
        for name, values in (("requests", requests), ("KV blocks", {"held": at["kv_blocks"]})):
            yield {"ph": "C", "name": name, "pid": replica, "ts": round(start_us, 3), "args": values}


def _requests(result: Result) -> Iterator[dict[str, Any]]:
    """Each request as nested asynchronous slices: waiting, prefill, decode."""
    ran = np.flatnonzero(np.isfinite(result.finish_s))[: _MAX_STEPS // 10]
    for row in ran:
        pid, identity = int(result.replica[row]), int(row)
        marks = [result.sent_s[row], result.scheduled_s[row], result.first_token_s[row], result.finish_s[row]]
        about = {"input_tokens": int(result.input_tokens[row]), "output_tokens": int(result.output_tokens[row])}
        spans = [(f"request {identity}", marks[0], marks[3], about)]
        spans += [(name, marks[i], marks[i + 1], {}) for i, name in enumerate(("waiting", "prefill", "decode"))]
        for name, start_s, end_s, args in spans:
            shared = {"cat": "user_annotation", "name": name, "id": identity, "pid": pid, "tid": 0}
            yield {"ph": "b", "ts": round(float(start_s) * _US, 3), "args": args, **shared}
            yield {"ph": "e", "ts": round(float(end_s) * _US, 3), **shared}
