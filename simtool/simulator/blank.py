"""An engine without prices: its decisions are those of any other, its steps take no time of their own."""

from __future__ import annotations

import numpy as np

from simtool.plan import Pool
from simtool.simulator.engine import EngineSpec, MemoryBudget
from simtool.simulator.tables import StepTables


def blank_engine(pool: Pool, *, num_blocks: int, max_model_len: int, step_s: float = 0.0) -> EngineSpec:
    """The engine of a replica of `pool` with so many KV blocks a rank. step_s: what every step takes."""
    tables = blank_tables(pool, step_s)
    parallel = pool.parallel
    return EngineSpec(
        tables=tables,
        lower=tables,
        upper=tables,
        scheduler=pool.scheduler,
        block_size=pool.kv.block_size,
        num_blocks=num_blocks,
        watermark_blocks=int(pool.kv.watermark * num_blocks),
        prefix_caching=pool.kv.prefix_caching,
        dp=parallel.dp,
        pp=parallel.pp,
        devices=parallel.devices,
        max_model_len=max_model_len,
        memory=MemoryBudget(**dict.fromkeys(MemoryBudget.__dataclass_fields__, 0.0)),
        provenance={},
    )


def blank_tables(pool: Pool, step_s: float) -> StepTables:
    """Zeros of the shapes that the pool's scheduler reads, and step_s where a step has any token."""
    scheduler, dp, stages = pool.scheduler, pool.parallel.dp, pool.parallel.pp
    tokens, seqs = scheduler.max_num_batched_tokens, scheduler.max_num_seqs
    token_s = np.zeros((stages, tokens + 1))
    token_s[-1, 1:] = step_s
    return StepTables(
        token_s=token_s,
        shared_s=np.zeros((stages, tokens * dp + 1)),
        decode_s=np.zeros((stages, seqs + 1, 2)),
        kv_knots=np.arange(2.0),
        prefill_rate=np.zeros((stages, 2, 2)),
        prefill_step=1.0,
        head_s=np.zeros(seqs * dp + 1),
        host_s=np.zeros(seqs + 1),
        host_overlapped=scheduler.async_scheduling,
        p2p_s=np.zeros(tokens + 1),
        token_j=np.zeros(tokens * dp + 1),
        attention_w=0.0,
        idle_w=0.0,
    )
