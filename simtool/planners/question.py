"""Question and Answer: what the planner is asked, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from simtool.metrics import Result, Slo
from simtool.plan import All2AllBackend, ExpertOffload, KernelLibrary, Overlap, Plan, ProfileFile, Scheduler, Scheduling
from simtool.workload import Workload

Objective = Literal[
    "throughput-per-gpu",  # output tokens/s/GPU, max
    "goodput-per-gpu",  # requests/s that meet the SLO a GPU, max
    "throughput-per-dollar",  # output tokens a dollar, max
    "latency",  # mean E2E seconds, min
    "ttft",
    "tpot",
    "gpus",  # devices used, min
    "cost-per-token",  # dollars a million output tokens, min
    "energy-per-token",  # joules an output token, min
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What may be chosen. An empty tuple means every value that could be legal.

    all2all_backend: tried where several ranks share spread experts; elsewhere nothing is exchanged. offload_auto: where
    an engine does not fit, offloads that its library has are tried, with as many slots as fit and fewer.
    """

    devices: tuple[int, ...] = ()
    replicas: tuple[int, ...] = ()
    tp: tuple[int, ...] = ()
    pp: tuple[int, ...] = ()
    dp: tuple[int, ...] = ()
    ep: tuple[int, ...] = ()
    all2all_backend: tuple[All2AllBackend, ...] = ("allgather_reducescatter",)
    weight_dtype: tuple[str, ...] = ("auto",)
    kv_dtype: tuple[str, ...] = ("auto",)
    max_num_seqs: tuple[int, ...] = (256,)
    max_num_batched_tokens: tuple[int, ...] = (2048, 8192)
    scheduling: tuple[Scheduling, ...] = ("chunked",)
    overlap: tuple[Overlap, ...] = (Overlap(),)
    offload: tuple[ExpertOffload, ...] = (ExpertOffload(),)
    offload_auto: bool = False
    router: tuple[str, ...] = ("round_robin",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which plan is best for `workload` of `model` on `devices` (as "8xh200" or "4xa100-80g+8xl4")?

    scheduler: the knobs of every engine that the space does not choose (policy, max_model_len, CUDA graphs, async).
    profiles: the user's own measurements (`simtool.profile_files`), before the shipped ones.
    """

    model: str
    devices: str
    workload: Workload
    objective: Objective = "throughput-per-gpu"
    slo: Slo = field(default_factory=Slo)
    kernel_library: KernelLibrary = "vllm"
    profiles: tuple[ProfileFile, ...] = ()
    space: Space = field(default_factory=Space)
    gpu_memory_utilization: float = 0.9
    prefix_caching: bool = False
    num_gpu_blocks: int = 0
    block_size: int = 16
    scheduler: Scheduler = field(default_factory=Scheduler)
    price_per_hour: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One legal plan: its optimistic bound, and what simulation said if it was simulated."""

    plan: Plan
    bound: float
    objective: float | None
    metrics: Mapping[str, float] | None
    meets_slo: bool | None
    status: Literal["best", "simulated", "pruned"]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """best: the winner with its Result. gap: relative distance from the best to the bound of all that is not simulated.

    metrics: vLLM's keys. intervals: key -> (lower, upper). illegal: rule name -> how many plans it excludes.
    """

    question: Question
    best: Candidate
    result: Result
    intervals: Mapping[str, tuple[float, float]]
    candidates: tuple[Candidate, ...]
    illegal: Mapping[str, int]
    legal: int
    simulated: int
    pruned: int
    gap: float
    provenance: Mapping[str, str]
    wall_s: float
