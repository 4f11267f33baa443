"""What an expert offload keeps on a device, in experts and bytes; and which engines can have one."""

from __future__ import annotations

from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.models.memory import slice_bytes_per_device
from simtool.models.parameters import layer_slices
from simtool.models.routing.shape import MoeShape, moe_shape
from simtool.plan import ExpertOffload, Parallel, Pool

_STAGED = frozenset({"on-demand", "speculative", "static-cheaper", "zero-copy"})  # policies that load beside the slots


def check_offload(arch: ModelArchitecture, pool: Pool) -> None:
    """Raise InputError for an offload that the pool's engine cannot be simulated with."""
    offload, parallel = pool.offload, pool.parallel
    shape = moe_shape(arch)
    if max(parallel.pp, parallel.dp, parallel.ep) > 1:
        rule = "experts are offloaded by one rank or a tensor-parallel group, without pp, dp and ep"
        raise InputError(offload.policy, rule, "-pp 1 -dp 1 -ep 1, or no offload")
    if not pool.overlap.off:
        raise InputError(offload.policy, "an offloaded engine runs one kernel after the other", "--overlap none")
    if offload.slots > shape.num_experts:
        rule = f"a layer of {arch.name} has {shape.num_experts} experts, not {offload.slots}"
        raise InputError(offload.slots, rule, "fewer slots")
    if offload.policy in ("lru", "lfu") and not offload.slots:
        raise InputError(offload.policy, "has no slots to keep experts in", f"{offload.policy},slots=2, or on-demand")


def layer_slots(offload: ExpertOffload, shape: MoeShape) -> list[int]:
    """Slots of each mixture layer. vLLM offloads the first layers, as many as it takes."""
    layers, experts = len(shape.layers), shape.num_experts
    if offload.policy != "zero-copy":
        return [offload.slots] * layers
    whole = offload.slots * layers // experts
    return [0] * (layers - whole) + [experts] * whole


def staging_slots(offload: ExpertOffload, shape: MoeShape) -> int:
    """Experts on their way that have a place of their own."""
    return (offload.staging or shape.top_k) if offload.policy in _STAGED else offload.staging


def hbm_slots(offload: ExpertOffload, shape: MoeShape) -> int:
    """Experts that HBM has room for, of all layers; kernels that read host memory keep nothing of it."""
    staged = 0 if offload.policy == "zero-copy" else staging_slots(offload, shape)
    return sum(layer_slots(offload, shape)) + staged


def expert_bytes(arch: ModelArchitecture, parallel: Parallel) -> float:
    """Bytes of one routed expert on one device."""
    shape = moe_shape(arch)
    layer = arch.layers[shape.layers[0]]
    routed = [item for item in layer_slices(arch, layer) if item.shard == "experts"]
    return sum(slice_bytes_per_device(arch, layer, item, parallel) for item in routed) / shape.num_experts


def offloaded_bytes(arch: ModelArchitecture, pool: Pool) -> float:
    """Weight bytes that are not on a device (0 where nothing is offloaded)."""
    if pool.offload.off:
        return 0.0
    shape = moe_shape(arch)
    held = hbm_slots(pool.offload, shape)
    return (len(shape.layers) * shape.num_experts - held) * expert_bytes(arch, pool.parallel)
