"""The compiled kernel and the interpreted one give the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np

from simtool.metrics import Result
from simtool.plan import Scheduler
from simtool.simulator.run import simulate_engines
from simtool.workload import Workload, make_workload
from tests.simulator.engines import law_engine


def scenarios() -> list[Result]:
    """Every scheduling mode, router, preemption, PP, DP, closed loop, prefixes."""
    results = []
    for mode in ("chunked", "no_chunking", "prefill_first", "static"):
        knobs = Scheduler(scheduling=mode, max_num_seqs=8, max_num_batched_tokens=640)  # type: ignore[arg-type]
        results.append(simulate_engines([law_engine(num_blocks=60, scheduler=knobs)], workload(1)))
    priority = Scheduler(policy="priority", max_num_seqs=8, max_num_batched_tokens=200)
    results.append(simulate_engines([law_engine(num_blocks=60, scheduler=priority)], workload(2)))
    for router in ("round_robin", "least_outstanding", "prefix_aware"):
        pair = [law_engine(num_blocks=80, pp=2, prefix_caching=True), law_engine(num_blocks=80, dp=2)]
        results.append(simulate_engines(pair, workload(3), router=router, record_steps=True))
        results.append(simulate_engines(pair, workload(4, closed=5), router=router))
    return results


def workload(seed: int, closed: int = 0) -> Workload:
    rng = np.random.default_rng(seed)
    n = 40
    base = make_workload(
        np.zeros(n) if closed else np.cumsum(rng.exponential(0.1, n)),
        rng.integers(1, 300, n).astype(np.int32),
        rng.integers(1, 300, n).astype(np.int32),
        max_concurrency=closed,
    )
    offsets = np.concatenate([[0], np.cumsum(base.input_tokens // 16)]).astype(np.int64)
    shared = np.concatenate([np.arange(k) + 20 * (i % 3) for i, k in enumerate(np.diff(offsets))])
    return dataclasses.replace(
        base,
        priority=rng.integers(0, 3, n).astype(np.int32),
        prefix_ids=shared.astype(np.int32),
        prefix_offsets=offsets,
        prefix_block_tokens=16,
    )


def digest() -> str:
    """One hash over all columns of all scenarios."""
    total = hashlib.sha256()
    for result in scenarios():
        for name in ("sent_s", "scheduled_s", "first_token_s", "finish_s", "cached_tokens", "preemptions", "replica"):
            total.update(getattr(result, name).tobytes())
        total.update(result.itl_counts.tobytes())
        total.update(np.float64(result.energy_j).tobytes())
        total.update(b"".join(result.steps[k].tobytes() for k in sorted(result.steps)))
    return total.hexdigest()


def test_compiled_equals_interpreted() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    program = "from tests.simulator.test_compiled import digest; print(digest())"
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest()
