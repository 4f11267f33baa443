"""A second, independent engine: one token at a time, plain lists, no leaps. The reference of tests and benchmarks.

It shares no code with the kernel: vLLM V1's scheduler written down as in its source, on the same step tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simtool.simulator.engine import EngineSpec
from simtool.simulator.tables import StepTables
from simtool.workload import Workload


@dataclass
class Live:
    """One request in the engine."""

    index: int
    prompt: int
    output: int
    generated: int = 0
    computed: int = 0
    blocks: int = 0
    decoding: bool = False  # its last step yielded a token: the next one is a decode
    first_s: float = -1.0
    finish_s: float = -1.0

    @property
    def known(self) -> int:
        return self.prompt + self.generated


def decode_s(engine: EngineSpec, lengths: list[int]) -> float:
    tables, count = engine.tables, len(lengths)
    return float(np.interp(sum(lengths) / count, tables.kv_knots, tables.decode_s[0, count]))


def saved_share(tables: StepTables, tokens: int, base: float, decode: float, prefill: float) -> float:
    """What an overlap saves, bilinear in the attention's shares; the first knot is a step without that attention."""
    knots = [np.linspace(0.0, 1.0, size - 1) for size in tables.gain.shape[2:]]
    shares = decode / (base + decode), prefill / (base + prefill)
    rows = tables.gain[0, tokens]
    rows = rows[0] if decode == 0 else np.array([np.interp(shares[0], knots[0], column) for column in rows[1:].T])
    return float(rows[0] if prefill == 0 else np.interp(shares[1], knots[1], rows[1:]))


def step_s(engine: EngineSpec, chunks: list[tuple[int, int]], lengths: list[int], sampled: int) -> float:
    tables = engine.tables
    tokens = len(lengths) + sum(new for new, _ in chunks)
    base = tables.token_s[0, tokens] + tables.shared_s[0, tokens]
    decode = decode_s(engine, lengths) * (tables.mixed_decode if chunks else 1.0) if lengths else 0.0
    rate = tables.prefill_rate[0, 0, 0]  # the law's rate is the same everywhere
    prefill = sum(rate * new * (context + 0.5 * (new + 1)) for new, context in chunks)
    seconds = base + decode + prefill
    if tables.overlapped and not chunks:
        seconds = base + np.interp(sum(lengths) / len(lengths), tables.kv_knots, tables.leap_s[len(lengths)])
    elif tables.overlapped:
        seconds *= 1.0 - saved_share(tables, tokens, base, decode, prefill)
    seconds += tables.head_s[sampled]
    host = tables.host_s[len(lengths) + len(chunks)]
    return float(max(seconds, host) if tables.host_overlapped else seconds + host)


def run_naive(engine: EngineSpec, workload: Workload, reserve_full: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """First-token and finish times of every request, FCFS, chunked prefill, preemption by recompute."""
    size, knobs = engine.block_size, engine.scheduler
    requests = [
        Live(i, int(p), int(o))
        for i, (p, o) in enumerate(zip(workload.input_tokens, workload.output_tokens, strict=True))
    ]
    waiting: list[Live] = []
    running: list[Live] = []
    free, now, last_start, upcoming = engine.num_blocks, 0.0, 0.0, 0

    def need(live: Live, tokens: int) -> int:
        return max(-(-tokens // size) - live.blocks, 0)

    while upcoming < len(requests) or waiting or running:
        if not waiting and not running:
            now = max(now, float(workload.arrival_s[upcoming]))
        # with asynchronous scheduling a step is put together when the one before it starts
        seen = last_start if engine.tables.host_overlapped and running else now
        last_start = now
        while upcoming < len(requests) and workload.arrival_s[upcoming] <= seen:
            waiting.append(requests[upcoming])
            upcoming += 1
        budget, preempted = knobs.max_num_batched_tokens, False
        scheduled: list[tuple[Live, int]] = []
        i = 0
        while i < len(running):
            live = running[i]
            new = min(live.known - live.computed, budget)
            if new <= 0:
                i += 1
                continue
            while need(live, live.computed + new) > free:
                victim = running.pop()
                free += victim.blocks
                victim.blocks, victim.computed, victim.decoding, preempted = 0, 0, False, True
                waiting.insert(0, victim)
                if victim is live:
                    break
            else:
                grown = need(live, live.computed + new)
                free -= grown
                live.blocks += grown
                scheduled.append((live, new))
                budget -= new
                i += 1
                continue
            break
        while waiting and not preempted and budget > 0 and len(running) < knobs.max_num_seqs:
            live = waiting[0]
            new = min(live.known, budget)
            asked = need(live, live.known if reserve_full else new)
            if asked > free:
                break
            waiting.pop(0)
            free -= need(live, new)
            live.blocks += need(live, new)
            running.append(live)
            scheduled.append((live, new))
            budget -= new
        chunks = [(new, live.computed) for live, new in scheduled if not live.decoding]
        lengths = [live.known for live, new in scheduled if live.decoding]
        sampled = sum(live.computed + new == live.known for live, new in scheduled)
        now += step_s(engine, chunks, lengths, sampled)
        for live, new in scheduled:
            live.computed += new
            if live.computed < live.known:
                continue
            live.generated += 1
            live.decoding = True
            if live.generated == 1:
                live.first_s = now
            if live.generated == live.output:
                live.finish_s = now
                running.remove(live)
                free += live.blocks
                live.blocks = 0
    return np.array([r.first_s for r in requests]), np.array([r.finish_s for r in requests])
