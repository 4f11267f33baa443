"""Legality: which plans an engine would start at all. Every rule has a name and a message; cheap rules come first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from simtool.models.architecture import (
    Attention,
    DenseMlp,
    LatentAttention,
    ModelArchitecture,
    MoeMlp,
    RecurrentMixer,
    WeightDtypes,
)
from simtool.overlaps import overlap_name
from simtool.plan import KernelLibrary, OffloadPolicyName, Pool
from simtool.planners.backend import DeviceGroup

# Which schedulers a library has: vLLM V1 and TensorRT-LLM share one token budget between prefills and decodes, SGLang
# runs waiting prefills first or mixes chunks (`--enable-mixed-chunk`); "torch" stands for a hand-written loop.
_SCHEDULERS: dict[KernelLibrary, frozenset[str]] = {
    "vllm": frozenset({"chunked", "no_chunking"}),
    "trtllm": frozenset({"chunked", "no_chunking", "static"}),
    "sglang": frozenset({"chunked", "prefill_first"}),
    "torch": frozenset({"chunked", "no_chunking", "prefill_first", "static"}),
}
# Which overlaps a library has: vLLM --enable-dbo, and shared experts on a stream of their own by itself; SGLang
# --enable-two-batch-overlap, --enable-single-batch-overlap. "torch" may do as it likes.
_OVERLAPS: dict[KernelLibrary, frozenset[str]] = {
    "vllm": frozenset({"none", "two-batch", "shared-experts"}),
    "sglang": frozenset({"none", "two-batch", "shared-experts"}),
    "trtllm": frozenset({"none"}),
}
# Expert offload that a library has: vLLM --cpu-offload-gb, SGLang with KTransformers (--kt-num-gpu-experts). "torch" is
# a loop of one's own, as simtool's executor.
OFFLOADS: dict[KernelLibrary, tuple[OffloadPolicyName, ...]] = {
    "vllm": ("zero-copy",),
    "sglang": ("static-cpu",),
    "trtllm": (),
    "torch": ("lru", "lfu", "on-demand", "speculative", "predicted-path", "static-cpu", "static-cheaper"),
}
_FP8_BLOCK = 128  # DeepSeek-V3 technical report, section 3.3; `weight_block_size` of Hugging Face configs
_FP8_BLOCK_SCALE_BYTES = 4 / _FP8_BLOCK**2
_INT4_GROUP = 128  # AWQ and GPTQ default group size


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """The numbers of a model that parallel degrees must divide, each without repeats."""

    layers: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    experts: tuple[int, ...]
    dense_widths: tuple[int, ...]
    expert_widths: tuple[int, ...]
    dense_block: int
    expert_block: int
    max_context: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a pool is judged in. quantised_on_load: block rules of the checkpoint do not hold. whole_nodes: a replica
    larger than a node takes whole nodes only, as operators deploy; asked-for degrees are free of it.
    """

    limits: ModelLimits
    group: DeviceGroup
    library: KernelLibrary
    quantised_on_load: bool
    whole_nodes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One reason to refuse a pool: `broken` gives the message, or "" where the rule is kept."""

    name: str
    broken: Callable[[Pool, Setting], str]


def model_limits(arch: ModelArchitecture) -> ModelLimits:
    """The divisors of an architecture."""
    mixers = [layer.mixer for layer in arch.layers]
    feeds = [layer.mlp for layer in arch.layers]
    moe = [feed for feed in feeds if isinstance(feed, MoeMlp)]
    dense = {feed.intermediate_size for feed in feeds if isinstance(feed, DenseMlp)}
    dense |= {feed.shared_intermediate_size for feed in moe} | {feed.dense_intermediate_size for feed in moe}
    return ModelLimits(
        layers=len(arch.layers),
        heads=_sorted({m.num_heads for m in mixers if isinstance(m, Attention | LatentAttention | RecurrentMixer)}),
        kv_heads=_sorted({m.num_kv_heads for m in mixers if isinstance(m, Attention)}),
        experts=_sorted({feed.num_experts for feed in moe}),
        dense_widths=_sorted(dense - {0}),
        expert_widths=_sorted({feed.intermediate_size for feed in moe}),
        dense_block=_block(arch.dtypes, arch.dtypes.mlp),
        expert_block=_block(arch.dtypes, arch.dtypes.experts),
        max_context=arch.max_position_embeddings,
    )


def _sorted(values: set[int]) -> tuple[int, ...]:
    return tuple(sorted(values))


def _block(dtypes: WeightDtypes, dtype: str) -> int:
    """Rows or columns that share a scale and must stay on one device (1: none). MXFP4 and NVFP4 weights are padded."""
    scale = dtypes.scale_bytes_per_element
    if dtype == "fp8" and (scale is None or abs(scale - _FP8_BLOCK_SCALE_BYTES) < 1e-9):
        return _FP8_BLOCK
    return _INT4_GROUP if dtype == "int4" else 1


def _heads(pool: Pool, setting: Setting) -> str:
    tp = pool.parallel.tp
    return _first(f"{n} attention heads cannot be split over tp={tp}" for n in setting.limits.heads if n % tp)


def _kv_heads(pool: Pool, setting: Setting) -> str:
    tp = pool.parallel.tp
    bad = [n for n in setting.limits.kv_heads if n % tp and tp % n]
    return _first(f"{n} KV heads neither split over nor repeat evenly on tp={tp}" for n in bad)


def _experts(pool: Pool, setting: Setting) -> str:
    ep = pool.parallel.ep
    return _first(f"{n} experts cannot be split over ep={ep}" for n in setting.limits.experts if n % ep)


def _expert_degree(pool: Pool, setting: Setting) -> str:
    p, ranks = pool.parallel, pool.parallel.tp * pool.parallel.dp
    if p.ep > 1 and not setting.limits.experts:
        return f"ep={p.ep} needs a mixture-of-experts model"
    if ranks % p.ep:
        return f"ep={p.ep} does not divide tp x dp = {ranks}"
    if setting.library == "vllm" and p.ep not in (1, ranks):
        return f"vLLM spreads experts over all of tp x dp = {ranks} ranks or over none, not ep={p.ep}"
    return ""


def _all2all(pool: Pool, setting: Setting) -> str:
    p = pool.parallel
    if p.sends_tokens and setting.library not in ("vllm", "sglang"):
        return f"{setting.library} is not told to use {p.all2all_backend}"
    if p.sends_tokens and p.moe_tp > 1:
        return f"DeepEP spreads experts over all of tp x dp = {p.tp * p.dp} ranks, not ep={p.ep}"
    return ""


def _data_parallel(pool: Pool, setting: Setting) -> str:
    if pool.parallel.dp > 1 and not setting.limits.experts:
        return f"dp={pool.parallel.dp} of a dense model is {pool.parallel.dp} replicas: say replicas instead"
    return ""


def _layers(pool: Pool, setting: Setting) -> str:
    p = pool.parallel
    if p.pp > setting.limits.layers:
        return f"pp={p.pp} exceeds the {setting.limits.layers} layers"
    if p.layers_per_stage and (
        len(p.layers_per_stage) != p.pp
        or sum(p.layers_per_stage) != setting.limits.layers
        or min(p.layers_per_stage) < 1
    ):
        return f"layers per stage {p.layers_per_stage} are not {p.pp} numbers that add up to {setting.limits.layers}"
    return ""


def _node(pool: Pool, setting: Setting) -> str:
    tp = pool.parallel.tp
    if tp > setting.group.largest_node:
        return f"tp={tp} crosses the boundary of a node of {setting.group.largest_node} x {setting.group.device}"
    stages = pool.replicas * pool.parallel.pp * pool.parallel.dp
    if stages * tp <= setting.group.count and stages > setting.group.slots(tp):
        return f"{stages} groups of tp={tp} do not fit into whole nodes of {setting.group.device}"
    return ""


def _devices(pool: Pool, setting: Setting) -> str:
    if pool.devices > setting.group.count:
        return f"{pool.devices} devices are asked, the cluster has {setting.group.count} x {setting.group.device}"
    return ""


def _whole_nodes(pool: Pool, setting: Setting) -> str:
    devices, node = pool.parallel.devices, setting.group.largest_node
    if setting.whole_nodes and devices > node and devices % node:
        return f"a replica of {devices} devices is larger than a node of {node} and leaves part of one unused"
    return ""


def _library(pool: Pool, setting: Setting) -> str:
    if pool.scheduler.scheduling not in _SCHEDULERS[setting.library]:
        known = ", ".join(sorted(_SCHEDULERS[setting.library]))
        return f"{setting.library} has no {pool.scheduler.scheduling} scheduling (it has {known})"
    if setting.library == "sglang" and pool.parallel.dp > 1 and pool.parallel.pp > 1:
        return "SGLang has no DP attention across pipeline stages"
    if pool.scheduler.max_num_batched_tokens < pool.scheduler.max_num_seqs:
        return "max_num_batched_tokens is below max_num_seqs"
    return ""


def _overlap(pool: Pool, setting: Setting) -> str:
    name, p = overlap_name(pool.overlap), pool.parallel
    known = _OVERLAPS.get(setting.library)
    if known is not None and pool.overlap.kv_transfer:
        return f"{setting.library} sends KV to another pool by options that a plan does not describe"
    if known is not None and name not in known:
        return f"{setting.library} has no overlap {name} (it has {', '.join(sorted(known))})"
    if name in ("two-batch", "shared-experts") and setting.library != "torch" and not setting.limits.experts:
        return f"{setting.library} has {name} for mixtures of experts only"
    if name == "two-batch" and setting.library != "torch" and not p.sends_tokens:
        return f"{setting.library} overlaps two batches only where DeepEP sends tokens (all2all_backend)"
    return ""


def _offload(pool: Pool, setting: Setting) -> str:
    offload, p = pool.offload, pool.parallel
    known = OFFLOADS[setting.library]
    if offload.off:
        return ""
    if not setting.limits.experts:
        return "only routed experts are offloaded, and the model has none"
    if offload.policy not in known:
        return f"{setting.library} has no {offload.policy} offload" + (f" (it has {', '.join(known)})" if known else "")
    if max(p.pp, p.dp, p.ep) > 1:
        return "experts are offloaded by one rank or a tensor-parallel group, without pp, dp and ep"
    if not pool.overlap.off:
        return "an engine that offloads experts runs one kernel after the other"
    return _first(f"a layer has {n} experts, not {offload.slots}" for n in setting.limits.experts if offload.slots > n)


def _quantisation(pool: Pool, setting: Setting) -> str:
    limits, p = setting.limits, pool.parallel
    for widths, block, degree, name in (
        (limits.dense_widths, limits.dense_block, p.tp, "tp"),
        (limits.expert_widths, limits.expert_block, p.moe_tp, "tp inside experts"),
    ):
        for width in widths if degree > 1 else ():
            if width % degree:
                return f"width {width} cannot be split over {name}={degree}"
            if not setting.quantised_on_load and (width // degree) % block:
                return f"width {width} over {name}={degree} is not a multiple of the quantisation block of {block}"
    return ""


RULES: tuple[Rule, ...] = (
    Rule(name="devices", broken=_devices),
    Rule(name="whole-nodes", broken=_whole_nodes),
    Rule(name="node-boundary", broken=_node),
    Rule(name="heads", broken=_heads),
    Rule(name="kv-heads", broken=_kv_heads),
    Rule(name="layers", broken=_layers),
    Rule(name="data-parallel", broken=_data_parallel),
    Rule(name="expert-degree", broken=_expert_degree),
    Rule(name="experts", broken=_experts),
    Rule(name="all2all-backend", broken=_all2all),
    Rule(name="kernel-library", broken=_library),
    Rule(name="overlap", broken=_overlap),
    Rule(name="offload", broken=_offload),
    Rule(name="quantisation-block", broken=_quantisation),
)


def broken_rule(pool: Pool, setting: Setting) -> tuple[str, str] | None:
    """The first rule a pool breaks and its message, or None. Memory is not judged here: that needs the engine."""
    for rule in RULES:
        message = rule.broken(pool, setting)
        if message:
            return rule.name, message
    return None


def _first(messages: Iterator[str]) -> str:
    return next(messages, "")
