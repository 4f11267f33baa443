"""EngineSpec: one replica of a plan, compiled: what the simulator needs and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simtool.plan import Scheduler
from simtool.simulator.offload.served import OffloadSpec
from simtool.simulator.tables import StepTables


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBudget:
    """Bytes on the fullest device of a replica, as the engine reckons them at start-up."""

    total_bytes: float
    usable_bytes: float  # utilization x total
    weight_bytes: float
    activation_bytes: float
    graph_bytes: float
    kv_bytes: float
    kv_bytes_per_block: float
    state_bytes_per_sequence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """tables: nominal step times; lower, upper: the ends of their interval.

    num_blocks and max_num_seqs hold for each of the dp ranks. max_model_len: longest context that may be asked.
    provenance: operator family -> kind of evidence. request_latency_s: what the client waits beyond the engine, for
    every request once: HTTP and tokenising on the way in, detokenising and HTTP on the way out. offload: of experts
    (None: all are in HBM); the tables then count for experts the least that they can take, and the store says more.
    """

    tables: StepTables
    lower: StepTables
    upper: StepTables
    scheduler: Scheduler
    block_size: int
    num_blocks: int
    watermark_blocks: int
    prefix_caching: bool
    dp: int
    pp: int
    devices: int
    max_model_len: int
    memory: MemoryBudget
    provenance: Mapping[str, str]
    request_latency_s: float = 0.0
    offload: OffloadSpec | None = None
