"""Small engines with a known law, for tests of the replica."""

from __future__ import annotations

import numpy as np

from simtool.plan import Scheduler
from simtool.simulator.engine import EngineSpec, MemoryBudget
from simtool.simulator.tables import StepTables


def law_tables(
    *,
    stages: int = 1,
    max_tokens: int = 512,
    max_seqs: int = 32,
    dp: int = 1,
    base_s: float = 5e-3,
    token_s: float = 2e-5,
    kv_s: float = 3e-8,
    pair_s: float = 1e-9,
    host_s: float = 2e-4,
    hidden: bool = False,
    mixed: float = 1.0,
    gain: float = 0.0,
) -> StepTables:
    """step = base + token_s*T + kv_s*D*x (concave kinks between knots) + pair_s*pairs, the same in every stage.

    gain: about what share of it an overlap saves; 0: nothing overlaps.
    """
    tokens = np.arange(max_tokens + 1)
    knots = np.concatenate([[0.0], 2.0 ** np.arange(0, 18)])
    per_length = knots + 30.0 * np.sqrt(knots)
    decode = kv_s * np.arange(max_seqs + 1)[:, None] * per_length[None, :]
    total = np.arange(max_tokens * dp + 1)
    bumps = np.sin(np.arange(stages * (max_tokens + 1) * 24)).reshape(stages, max_tokens + 1, 6, 4)
    return StepTables(
        token_s=np.tile(base_s + token_s * tokens, (stages, 1)) / stages,
        shared_s=np.tile(1e-6 * total if dp > 1 else 0.0 * total, (stages, 1)),
        decode_s=np.tile(decode, (stages, 1, 1)) / stages,
        kv_knots=knots,
        prefill_rate=np.full((stages, 24, 24), pair_s / stages),
        prefill_step=1.0,
        head_s=1e-6 * np.arange(max_seqs * dp + 1),
        host_s=np.full(max_seqs + 1, host_s),
        host_overlapped=hidden,
        p2p_s=np.full(max_tokens + 1, 1e-5 if stages > 1 else 0.0),
        token_j=0.1 * tokens,
        mixed_decode=mixed,
        attention_w=100.0,
        idle_w=50.0,
        gain=gain * bumps if gain else np.zeros((stages, 0, 6, 4)),
        leap_s=decode * (1.0 - 0.7 * gain) - gain * base_s if gain else np.zeros((0, len(knots))),
    )


def law_engine(
    *,
    num_blocks: int = 400,
    block_size: int = 16,
    scheduler: Scheduler | None = None,
    pp: int = 1,
    dp: int = 1,
    prefix_caching: bool = False,
    watermark_blocks: int = 0,
    **law: float,
) -> EngineSpec:
    """An engine whose step follows `law_tables`."""
    knobs = scheduler or Scheduler(max_num_seqs=32, max_num_batched_tokens=512)
    tables = law_tables(stages=pp, max_tokens=knobs.max_num_batched_tokens, max_seqs=knobs.max_num_seqs, dp=dp, **law)
    return EngineSpec(
        tables=tables,
        lower=tables,
        upper=tables,
        scheduler=knobs,
        block_size=block_size,
        num_blocks=num_blocks,
        watermark_blocks=watermark_blocks,
        prefix_caching=prefix_caching,
        dp=dp,
        pp=pp,
        devices=pp * dp,
        max_model_len=1 << 17,
        memory=MemoryBudget(
            total_bytes=1.0,
            usable_bytes=1.0,
            weight_bytes=0.0,
            activation_bytes=0.0,
            graph_bytes=0.0,
            kv_bytes=1.0,
            kv_bytes_per_block=1.0,
            state_bytes_per_sequence=0.0,
        ),
        provenance={},
    )
