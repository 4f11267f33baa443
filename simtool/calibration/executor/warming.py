"""Warming up: a prompt and a decode on every rank before the run, so that its first step has no start-up in it.

Connections between ranks, a library's first choice of kernels and the first growth of memory come with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simtool.calibration.executor.batch import Slot, StepBatch
from simtool.calibration.executor.job import Job
from simtool.plan import Pool

if TYPE_CHECKING:
    from simtool.calibration.executor.runner import Runner


def warm_up(runner: Runner, pool: Pool, job: Job) -> None:
    """Run a prompt as long as the workload's longest, within a step's budget, and one token after it.

    What it writes to the KV cache is overwritten before it is read.
    """
    size, blocks = pool.kv.block_size, pool.kv.num_gpu_blocks
    longest = int(job.workload.input_tokens.max())
    prompt = max(1, min(longest, pool.scheduler.max_num_batched_tokens, blocks * size - 1))
    ids = np.random.default_rng(0).integers(0, job.architecture.vocab_size, prompt)
    table = np.arange(-(-(prompt + 1) // size), dtype=np.int64) % blocks
    first = Slot(request=0, tokens=ids, context=0, blocks=table, samples=True)
    then = Slot(request=0, tokens=ids[:1], context=prompt, blocks=table, samples=True)
    for batch in (StepBatch(prefills=(first,)), StepBatch(decodes=(then,))):
        runner.submit(0, [batch] * pool.parallel.dp)
        runner.collect(0)
