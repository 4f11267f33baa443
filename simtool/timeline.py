"""Timeline: a run as Chrome trace JSON, which Perfetto and chrome://tracing open.

Process = replica, thread = its stream; step slices carry the category of PyTorch profiler's device work ("kernel" for
the step, "user_annotation" for the batch), so that simulated and measured traces load alike. Times are microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simtool.metrics import Result
from simtool.plan import Plan

_MAX_STEPS = 200_000  # slices; Perfetto stays quick, the file stays below 100 MB
_US = 1e6
_STREAM = 7  # PyTorch's usual compute stream, so that a measured trace lines up
_STEP_ARGS = ("iterations", "prefill_tokens", "decode_requests", "kv_blocks")


def write_timeline(plan: Plan, result: Result, path: Path) -> None:
    """Write the step records of `result` (simulate with record_steps) and its requests to `path`."""
    steps = len(result.steps.get("start_s", ()))
    about = {"model": plan.model, "cluster": plan.cluster, "steps": steps, "steps_shown": min(steps, _MAX_STEPS)}
    with path.open("w", encoding="utf-8") as out:
        out.write('{"displayTimeUnit":"ms","otherData":' + json.dumps(about) + ',"traceEvents":[\n')
        out.write(",\n".join(timeline_events(plan, result)))
        out.write("\n]}\n")


def timeline_events(plan: Plan, result: Result) -> Iterator[str]:
    """Trace events, one JSON object each: names of processes and threads, slices of steps, counters, requests.

    Numbers are put into text directly: a long trace has millions of events, and encoding each as a dict takes
    longer than the simulation.
    """
    yield from _names(plan, result)
    yield from _steps(result)
    yield from _requests(result)


def _names(plan: Plan, result: Result) -> Iterator[str]:
    """Metadata: which process is which replica."""
    pools = [pool for pool in plan.pools for _ in range(pool.replicas)]
    for replica in range(max(len(result.kv_blocks), 1)):
        pool = pools[replica] if replica < len(pools) else plan.pools[-1]
        degrees = f"TP{pool.parallel.tp} PP{pool.parallel.pp} DP{pool.parallel.dp} EP{pool.parallel.ep}"
        label = f"replica {replica} ({pool.device}, {degrees})"
        shared = {"ph": "M", "pid": replica}
        yield json.dumps({**shared, "name": "process_name", "args": {"name": label}})
        yield json.dumps({**shared, "name": "process_sort_index", "args": {"sort_index": replica}})
        yield json.dumps({**shared, "name": "thread_name", "tid": _STREAM, "args": {"name": f"stream {_STREAM}"}})


def _steps(result: Result) -> Iterator[str]:
    """One slice a record, and the scheduler's counters at its start; a leap of many iterations is one slice."""
    steps = {name: column[:_MAX_STEPS] for name, column in result.steps.items()}
    if not steps:
        return
    start_us = steps["start_s"] * _US
    whole = [steps[name].astype(np.int64).tolist() for name in ("replica", *_STEP_ARGS, "waiting", "running")]
    times = (start_us.tolist(), (steps["end_s"] * _US - start_us).tolist())
    for ts, dur, pid, iterations, prefill, decode, blocks, waiting, running in zip(*times, *whole, strict=True):
        kind = ("prefill+decode" if decode else "prefill") if prefill else "decode"
        yield (
            f'{{"ph":"X","cat":"kernel","name":"step: {kind}","pid":{pid},"tid":{_STREAM},"ts":{ts:.3f},'
            f'"dur":{dur:.3f},"args":{{"iterations":{iterations},"prefill_tokens":{prefill},'
            f'"decode_requests":{decode},"kv_blocks":{blocks}}}}}'
        )
        counter = f'"ph":"C","pid":{pid},"ts":{ts:.3f}'
        yield f'{{{counter},"name":"requests","args":{{"waiting":{waiting},"running":{running}}}}}'
        yield f'{{{counter},"name":"KV blocks","args":{{"held":{blocks}}}}}'


def _requests(result: Result) -> Iterator[str]:
    """Each request as nested asynchronous slices: waiting, prefill, decode."""
    ran = np.flatnonzero(np.isfinite(result.finish_s))[: _MAX_STEPS // 10]
    moments = (result.sent_s, result.scheduled_s, result.first_token_s, result.finish_s)
    marks_us = np.column_stack([column[ran] for column in moments]) * _US
    whole = [column[ran].tolist() for column in (result.replica, result.input_tokens, result.output_tokens)]
    for row, (sent, scheduled, first, finish), pid, given, made in zip(
        ran.tolist(), marks_us.tolist(), *whole, strict=True
    ):
        about = f'"input_tokens":{given},"output_tokens":{made}'
        spans = ((f"request {row}", sent, finish, about), ("waiting", sent, scheduled, ""))
        for name, start, end, args in (*spans, ("prefill", scheduled, first, ""), ("decode", first, finish, "")):
            shared = f'"cat":"user_annotation","name":"{name}","id":{row},"pid":{pid},"tid":0'
            yield f'{{"ph":"b","ts":{start:.3f},"args":{{{args}}},{shared}}}'
            yield f'{{"ph":"e","ts":{end:.3f},{shared}}}'
