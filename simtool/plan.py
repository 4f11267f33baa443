"""Plan: everything one may decide, in one serialisable value. A plan file replays exactly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Scheduling = Literal["chunked", "no_chunking", "prefill_first", "static"]
Router = Literal["round_robin", "least_outstanding", "prefix_aware"]
KernelLibrary = Literal["vllm", "sglang", "trtllm", "torch"]
All2AllBackend = Literal["allgather_reducescatter", "deepep_high_throughput", "deepep_low_latency"]
OffloadPolicyName = Literal[
    "none",
    "lru",
    "lfu",
    "on-demand",
    "speculative",
    "predicted-path",
    "static-cpu",
    "static-cheaper",
    "zero-copy",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Parallel degrees of one replica, in vLLM's words. Devices a replica = tp × pp × dp.

    tp: tensor parallel degree of attention and dense layers.
    pp: pipeline stages; `layers_per_stage` gives the split (empty: as even as possible, as vLLM does).
    dp: data-parallel attention ranks (vLLM `--data-parallel-size`, SGLang `--enable-dp-attention`); every rank is a
        scheduler of its own, all ranks step together because experts are spread over tp × dp.
    ep: expert parallel degree; experts are cut by tensor parallelism over the remaining tp × dp / ep.
    all2all_backend: how tokens of several data-parallel ranks reach their experts, vLLM's `--all2all-backend`: all
        gather all tokens, or DeepEP sends each token to its experts' devices, by way of one device a node (high
        throughput) or straight, a copy an expert (low latency). SGLang: `--moe-a2a-backend deepep --deepep-mode`.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    layers_per_stage: tuple[int, ...] = ()
    all2all_backend: All2AllBackend = "allgather_reducescatter"

    @property
    def devices(self) -> int:
        """Devices a replica."""
        return self.tp * self.pp * self.dp

    @property
    def moe_tp(self) -> int:
        """Tensor-parallel degree inside an expert."""
        return self.tp * self.dp // self.ep

    @property
    def sends_tokens(self) -> bool:
        """Tokens are sent to the devices of their experts, not gathered on all; one rank has nobody to send to."""
        return self.all2all_backend != "allgather_reducescatter" and self.dp > 1 and self.ep > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """One engine's scheduler knobs; names and defaults are vLLM V1's (version 0.19, `vllm serve`).

    chunked: one token budget shared by decodes and prefill chunks (vLLM V1).
    no_chunking: as chunked, but a prompt is scheduled whole.
    prefill_first: steps of waiting prefills alone run before decodes go on (SGLang default, vLLM V0).
    static: a batch is admitted only when the previous one has finished; all run to the longest output.
    """

    scheduling: Scheduling = "chunked"
    policy: Literal["fcfs", "priority"] = "fcfs"
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 0  # 0: the model's own limit
    cuda_graphs: bool = True
    cuda_graph_sizes: tuple[int, ...] = ()  # () = vLLM's default capture sizes
    async_scheduling: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class KvPolicy:
    """The KV cache of one scheduler. `num_gpu_blocks` 0: computed from memory as the engine does."""

    block_size: int = 16
    gpu_memory_utilization: float = 0.9
    watermark: float = 0.0
    prefix_caching: bool = False
    num_gpu_blocks: int = 0
    dtype: str = "auto"  # "auto": the model's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """A collective in chunks, each as soon as its data are there (Flux, FlashOverlap, T3, Comet, Tutel).

    collective: the operator, e.g. "attention_all_reduce", "mlp_all_reduce", "moe_dispatch", "moe_combine".
    producer: the kernel before it sends each chunk when it is computed. consumer: the kernel after it starts with the
    first chunk that arrived; local_first is its share of work that needs nobody else's data and goes first.
    local_last: the producer's share of work that nobody else needs and goes last (T3's own chunk).
    waves: how many waves of the producer's tiles each chunk has, in order (FlashOverlap), on the multiprocessors that
    the collective leaves; () makes `chunks` equal ones.
    separate: "kernels" are cut into kernels and messages of their own, which read weights again; "messages" come from
    one kernel that signals; "" sends from inside the kernel, where only the first chunk pays a latency.
    """

    collective: str
    chunks: int
    producer: bool = True
    consumer: bool = False
    local_first: float = 0.0
    local_last: float = 0.0
    waves: tuple[int, ...] = ()
    separate: Literal["", "messages", "kernels"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What of a step runs at once. The default runs one kernel after the other.

    nano_batches: shares of the batch that run as batches of their own, interleaved (NanoFlow; two-batch overlap, vLLM
    `--enable-dbo`); () keeps the batch whole. attention_stream, network_stream, branch_stream: decode attention,
    collectives, shared experts each get a stream beside the main one. fusions: collectives in chunks. comm_sms:
    multiprocessors that a collective keeps while it runs beside others. full_comm_sms: how many it needs for its full
    speed; with fewer it is slower in proportion (0: any number will do). fixed_sms: a kernel cut into chunks never has
    them, for its thread blocks are placed at launch (Comet); else it has them when nothing is sent. compute_first: the
    memory serves collectives last (T3). reduces_in_memory: sums are made where the data lie (T3), which saves reading.
    min_tokens, min_prefill_tokens: steps of decodes alone, and steps with prompts, of fewer tokens a rank run without
    all this (vLLM `--dbo-decode-token-threshold`, `--dbo-prefill-token-threshold`).
    kv_transfer: a step with prompts sends the KV of its new tokens to a decode pool, and waits for it (vLLM's KV
    connectors: `save_kv_layer`, `wait_for_save`): "layers" sends a layer's after its attention, beside what follows
    (Mooncake, Splitwise), "whole" all of it after the last layer; "" sends nothing. kv_link: where the decode pool is.
    """

    nano_batches: tuple[float, ...] = ()
    attention_stream: bool = False
    network_stream: bool = False
    branch_stream: bool = False
    fusions: tuple[Fusion, ...] = ()
    comm_sms: int = 0
    full_comm_sms: float = 0.0
    fixed_sms: bool = False
    compute_first: bool = False
    reduces_in_memory: bool = False
    min_tokens: int = 0
    min_prefill_tokens: int = 0
    kv_transfer: Literal["", "whole", "layers"] = ""
    kv_link: Literal["inter_node", "intra_node"] = "inter_node"

    def least_tokens(self, *, prompts: bool) -> int:
        """Fewest tokens of a rank with which a step overlaps at all."""
        return max(1, self.min_prefill_tokens if prompts else self.min_tokens)

    @property
    def off(self) -> bool:
        """Whether everything runs one after the other, and nothing is sent to another pool."""
        return len(self.nano_batches) < 2 and not (
            self.attention_stream or self.network_stream or self.branch_stream or self.fusions or self.kv_transfer
        )

    @property
    def fallback(self) -> Overlap:
        """What steps of too few tokens run with: one kernel after the other, and KV that must be sent goes whole."""
        return Overlap(kv_transfer="whole", kv_link=self.kv_link) if self.kv_transfer else Overlap()

    @property
    def kv_nodes(self) -> int:
        """Nodes that a KV transfer touches: 2, or 1 inside a node; 0 where nothing is sent."""
        return (2 if self.kv_link == "inter_node" else 1) if self.kv_transfer else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertOffload:
    """Routed experts in host memory, some of them in HBM too. The default keeps all in HBM.

    policy: "lru", "lfu": each layer's slots keep what was used last, or most. "on-demand": nothing is kept, the slots
    hold the most used experts for good. "speculative": LRU, and the next layer's likely experts in staging
    (Mixtral-offloading). "predicted-path": the layers' slots together go to what is predicted (ExpertFlow).
    "static-cpu": the most used experts stay, the CPU computes the others (KTransformers); "static-cheaper": or they are
    copied, where that is cheaper (Fiddler). "zero-copy": whole layers stay, of the others the kernels read what they
    need from host memory (vLLM `--cpu-offload-gb`).
    slots: experts of a layer that HBM holds. staging: experts on their way beside them, of all layers together (0: as
    many as one token chooses, where the policy needs any). window: layers ahead that are prefetched. recall: the share
    of a token's experts that a prediction finds, assumed.
    """

    policy: OffloadPolicyName = "none"
    slots: int = 0
    staging: int = 0
    window: int = 1
    recall: float = 0.9

    @property
    def off(self) -> bool:
        """Whether all experts are in HBM."""
        return self.policy == "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """`replicas` equal engines on one device type. `stage_devices` names a device a pipeline stage when they differ.

    overlap: what of a step runs at once (default: one kernel after the other). offload: where experts are (default:
    all in HBM).
    """

    device: str
    replicas: int = 1
    parallel: Parallel = field(default_factory=Parallel)
    scheduler: Scheduler = field(default_factory=Scheduler)
    kv: KvPolicy = field(default_factory=KvPolicy)
    stage_devices: tuple[str, ...] = ()
    overlap: Overlap = field(default_factory=Overlap)
    offload: ExpertOffload = field(default_factory=ExpertOffload)

    @property
    def devices(self) -> int:
        """Devices the pool takes."""
        return self.replicas * self.parallel.devices


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFile:
    """A kernel profile that prices a plan, made by `simtool.profile_files`. checksum: the profile's own, so that a plan
    is never priced with another one; a relative path is relative to the working folder, as a model's is.
    """

    path: str
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What runs where. `model` is a catalogue name or a path to a config.json; `cluster` is the `--devices` text.

    weight_dtype "auto": as the model's config states. profiles: the user's own measurements, before the shipped ones.
    """

    model: str
    cluster: str
    pools: tuple[Pool, ...]
    weight_dtype: str = "auto"
    kernel_library: KernelLibrary = "vllm"
    router: Router = "round_robin"
    profiles: tuple[ProfileFile, ...] = ()
    schema: int = 1

    @property
    def devices(self) -> int:
        """Devices of all pools."""
        return sum(pool.devices for pool in self.pools)
