"""Twins: plans whose runs are equal step by step, so that only one of them is simulated."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from simtool.planners.demand import Demand
from simtool.planners.space import Proposal
from simtool.simulator.engine import EngineSpec


def twin_key(proposal: Proposal, demand: Demand) -> tuple[object, ...]:
    """Equal for plans that differ only in knobs the workload never reaches.

    No more requests than are in flight at once can run, so a larger max_num_seqs changes nothing; and where all of them
    fit into KV memory at their longest, so does more memory (prefix caching keeps what is left, and is excepted).
    """
    spec, plan = proposal.spec, proposal.plan
    pool = plan.pools[0]
    most = int(min(demand.concurrency, float(demand.requests)))
    seats = min(spec.scheduler.max_num_seqs, most)
    needed = most * (-(-demand.longest_context // spec.block_size) + 1) + spec.watermark_blocks
    blocks = spec.num_blocks if spec.prefix_caching else min(spec.num_blocks, needed)
    router = plan.router if pool.replicas > 1 else ""
    scheduler = (spec.scheduler.scheduling, spec.scheduler.policy, spec.scheduler.max_num_batched_tokens)
    shape = (pool.device, pool.offload, pool.replicas, pool.devices, spec.dp, spec.pp, router, spec.block_size)
    return (*shape, *scheduler, seats, blocks, _digest(spec, seats))


def _digest(spec: EngineSpec, seats: int) -> bytes:
    """The step times that `seats` requests a rank can meet."""
    tables = spec.tables
    found = blake2b(digest_size=16)
    arrays = (
        tables.token_s,
        tables.shared_s,
        tables.decode_s[:, : seats + 1],
        tables.kv_knots,
        tables.prefill_rate,
        tables.head_s[: seats * spec.dp + 1],
        tables.host_s[: seats + 1],
        tables.p2p_s,
        tables.gain,
        tables.leap_s[: seats + 1],
        tables.token_j,
        np.array([tables.prefill_step, float(tables.host_overlapped), tables.attention_w, tables.idle_w]),
    )
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.digest()
