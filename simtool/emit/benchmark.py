"""benchmark.sh: the client that sends the workload to what was launched, with the same numbers and the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simtool.emit.command import Command, Options
from simtool.emit.option_table import OptionTable
from simtool.emit.placement import FIRST_PORT
from simtool.emit.replay import replay_lines, replay_options
from simtool.emit.subject import Subject
from simtool.errors import InputError
from simtool.workload import Workload

if TYPE_CHECKING:
    from simtool.scenario import WorkloadSection

BENCH = "vllm bench serve"
BENCH_SGLANG = "sglang.bench_serving"
TRACE = "trace.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is sent. section: how it was asked for. workload: its very requests. replay: send those, not new draws."""

    section: WorkloadSection
    workload: Workload
    replay: bool = False


def benchmark_files(
    subject: Subject, traffic: Traffic, client: OptionTable, server: str, *, port: int = FIRST_PORT
) -> dict[str, str]:
    """benchmark.sh, and trace.jsonl where the client replays requests. Raises InputError for what it cannot send."""
    _check(traffic)
    reason = _undrawable(traffic)
    files: dict[str, str] = {}
    if client.engine == "sglang":
        command = _sglang_command(subject, traffic, client, reason, port)
    else:
        options = _drawn(traffic.section)
        if reason:
            options = replay_options(traffic.workload, client, BENCH, reason, TRACE)
            files[TRACE] = "".join(replay_lines(traffic.workload))
        command = _vllm_command(subject, traffic, server, options, port)
    source = "".join(letter if letter.isprintable() else " " for letter in traffic.workload.source)
    lines = ["#!/usr/bin/env bash", f"# {source or 'the workload'}, sent by {client.title}"]
    lines += ["set -euo pipefail", 'here=$(cd "$(dirname "$0")" && pwd)', "", command.checked(client).shell()]
    return {"benchmark.sh": "\n".join(lines) + "\n"} | files


def _vllm_command(subject: Subject, traffic: Traffic, server: str, options: Options, port: int) -> Command:
    common: Options = [
        ("--backend", ("vllm" if server == "vllm" else "openai",)),
        ("--base-url", (f"http://127.0.0.1:{port}",)),
        ("--endpoint", ("/v1/completions",)),
        ("--model", (subject.model,)),
    ]
    if subject.served_name != subject.model:
        common.append(("--served-model-name", (subject.served_name,)))
    common += options
    common += [("--num-prompts", (str(traffic.workload.num_requests),)), ("--seed", (str(traffic.section.seed),))]
    if traffic.workload.max_concurrency:
        common.append(("--max-concurrency", (str(traffic.workload.max_concurrency),)))
    common += [("--ignore-eos", ()), ("--percentile-metrics", ("ttft,tpot,itl,e2el",))]
    common += [("--save-result", ()), ("--save-detailed", ())]  # what simtool validate reads
    env = (("PYTHONHASHSEED", "0"),) if ("--dataset-name", ("timed_trace",)) in options else ()  # its prompts hash ids
    return Command(program=BENCH, words=("vllm", "bench", "serve"), options=tuple(common), env=env)


def _drawn(section: WorkloadSection) -> Options:
    """Requests drawn by the client, from the distributions that simtool drew them from."""
    options: Options = [
        ("--dataset-name", ("random",)),
        ("--random-input-len", (section.input_len,)),
        ("--random-output-len", (section.output_len,)),
        ("--random-range-ratio", (f"{section.random_range_ratio:g}",)),
    ]
    if section.prefix_len:
        options.append(("--random-prefix-len", (str(section.prefix_len),)))
    options.append(("--request-rate", ("inf" if section.request_rate is None else repr(section.request_rate),)))
    if section.request_rate is not None:
        options.append(("--burstiness", (repr(section.burstiness),)))
    return options


def _sglang_command(subject: Subject, traffic: Traffic, client: OptionTable, reason: str, port: int) -> Command:
    """SGLang's client draws fixed lengths and Poisson arrivals. Raises InputError for anything else."""
    section = traffic.section
    if section.random_range_ratio:
        reason = "its range ratio cuts lengths downwards only"
    if section.prefix_len:
        reason = "its random requests share no prefix"
    if section.burstiness != 1:
        reason = "its arrivals are Poisson alone"
    if reason:
        raise InputError("workload", f"{client.title} cannot send it: {reason}", "--bench-client vllm")
    options: Options = [
        ("--backend", ("sglang",)),
        ("--base-url", (f"http://127.0.0.1:{port}",)),
        ("--model", (subject.model,)),
        ("--dataset-name", ("random-ids",)),
        ("--random-input-len", (section.input_len,)),
        ("--random-output-len", (section.output_len,)),
        ("--random-range-ratio", ("1.0",)),  # its 1 is a fixed length
        ("--request-rate", ("inf" if section.request_rate is None else repr(section.request_rate),)),
        ("--num-prompts", (str(traffic.workload.num_requests),)),
        ("--seed", (str(section.seed),)),
    ]
    if traffic.workload.max_concurrency:
        options.append(("--max-concurrency", (str(traffic.workload.max_concurrency),)))
    if subject.served_name != subject.model:
        options.append(("--served-model-name", (subject.served_name,)))
    return Command(program=BENCH_SGLANG, words=("python3", "-m", "sglang.bench_serving"), options=tuple(options))


def _undrawable(traffic: Traffic) -> str:
    """Why a client cannot draw the requests itself, so that they have to be replayed ("": it can)."""
    section = traffic.section
    if traffic.replay:
        return "a replay was asked for"
    if section.trace:
        return "the requests are a trace's own"
    if not (section.input_len.isdigit() and section.output_len.isdigit()):
        return f"lengths are {section.input_len} and {section.output_len}"
    if section.n > 1:
        return f"each prompt is sampled {section.n} times"
    if section.num_prefixes > 1 and section.prefix_len:
        return f"there are {section.num_prefixes} shared prefixes"
    if section.long_requests in ("drop", "clip"):
        return "requests beyond the context were left out or cut"
    return ""


def _check(traffic: Traffic) -> None:
    """What no client of these engines sends."""
    workload = traffic.workload
    if len(workload.follows) and np.any(workload.follows >= 0):
        rule = "a turn that waits for the turn before it cannot be sent by these benchmark clients"
        raise InputError("turns", rule, "leave out --turns, or the follows column of the trace")
    if len(workload.priority) and np.any(workload.priority != workload.priority[0]):
        raise InputError("priority", "benchmark clients send every request with the same priority", "leave it out")
    if workload.warmup_requests:
        rule = "benchmark clients count every request that they send"
        raise InputError("warmup_requests", rule, "leave it out: the engine is warmed up at start")
