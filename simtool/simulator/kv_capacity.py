"""KV capacity: how many cache blocks an engine has room for, reckoned as vLLM reckons it at start-up.

    KV bytes = utilization x total - weights - activation peak - CUDA graphs - memory outside the allocator
The engine takes the least number of blocks over its devices (vllm/v1/worker/gpu_worker.py, determine_available_memory).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil

from simtool.errors import InfeasibleError, InputError
from simtool.hardware.device import Device
from simtool.models.architecture import (
    Attention,
    FeedForward,
    LatentAttention,
    Mixer,
    ModelArchitecture,
    MoeMlp,
)
from simtool.models.lowering_shard import kv_heads_per_rank, latent_width
from simtool.models.memory import (
    kv_bytes_per_sequence,
    stage_layers,
    state_bytes_per_sequence,
    weight_bytes_per_device,
)
from simtool.models.offload_memory import check_offload, offloaded_bytes
from simtool.plan import Parallel, Pool
from simtool.simulator.cpu_engine import pool_on
from simtool.simulator.engine import MemoryBudget
from simtool.simulator.grids import capture_sizes
from simtool.simulator.offload.room import check_host_memory
from simtool.units import DTYPE_BYTES, GB, GIB, KIB, MIB

# Bytes a logit while vLLM's profile run samples for max_num_seqs requests with top-k and top-p: bf16 and fp32 logits
# (2 + 4), torch.sort's values and int64 indices and as much for its scratch (2 x (4 + 8))
# (v1/worker/gpu_model_runner.py `_dummy_sampler_run`, v1/sample/ops/topk_topp_sampler.py).
_SAMPLER_BYTES = 30.0
# Outside torch's allocator beside the CUDA context: kernels' modules and workspaces. vLLM logs "non_torch_memory takes
# 0.09GiB" for Llama-3.1-8B on one GPU.
_NON_TORCH_BYTES = 0.09 * GIB
# NCCL buffers when devices talk: 4 MiB (NCCL_BUFFSIZE) x send and receive x up to 32 channels x ring, tree, NVLS.
_NCCL_BYTES = 768 * MIB
# A Python process with torch on a CPU: `import torch` (2.13) alone is 0.21 GiB; gloo and workspaces come on top.
_CPU_PROCESS_BYTES = 0.5 * GIB
# CUDA graphs: a node is a kernel; two graphs (piecewise, full) a captured size. 3 KiB a node is what remains of the
# measured RTX 4090, Llama-3.1-8B, vLLM 0.19 budget (2588 blocks) after the terms above.
_GRAPH_NODE_BYTES, _GRAPHS_A_SIZE, _KERNELS_A_LAYER = 3 * KIB, 2, 12
_MOE_CHUNK_TOKENS = 16384  # vllm/envs.py VLLM_FUSED_MOE_CHUNK_SIZE
_TYPICAL_SEQUENCE_TOKENS = 4096
_MAX_RELAXED_DEVICES = 128
_USUAL_UTILIZATION = 0.9  # vLLM's default (config/cache.py)


def kv_capacity(
    arch: ModelArchitecture, pool: Pool, devices: Sequence[Device], *, sequence_tokens: int = 0
) -> tuple[int, MemoryBudget]:
    """(blocks of each data-parallel rank, budget of the stage with the fewest), devices: one a pipeline stage.

    pool.kv.num_gpu_blocks overrides the number, not the check that the weights fit. Windowed layers stop growing and
    recurrent layers keep a fixed state, so a block's bytes depend on a sequence's length: they are those of a sequence
    of `sequence_tokens` (0: the longest allowed, at most 4096) divided by its blocks.
    Raises InfeasibleError("memory") when not one block fits.
    """
    _check_policy(pool)
    pool = pool_on(pool, devices)
    if not pool.offload.off:
        check_offload(arch, pool)
        check_host_memory(arch, pool, devices[0])
    found = [(_stage_blocks(arch, pool, stage, device, sequence_tokens)) for stage, device in enumerate(devices)]
    blocks, memory = min(found, key=lambda entry: entry[0])
    if pool.kv.num_gpu_blocks:
        blocks = pool.kv.num_gpu_blocks
    worst = min((budget for _, budget in found), key=lambda budget: budget.kv_bytes - budget.kv_bytes_per_block)
    needed = 0.0 if pool.kv.num_gpu_blocks else worst.kv_bytes_per_block
    if worst.kv_bytes < needed or blocks < 1:
        short = (needed - worst.kv_bytes) / GB
        detail = (
            f"{arch.name} needs {short:.1f} GB more on each device: {worst.weight_bytes / GB:.1f} GB weights + "
            f"{worst.activation_bytes / GB:.1f} GB activations + {worst.graph_bytes / GB:.1f} GB CUDA graphs, "
            f"{worst.usable_bytes / GB:.1f} GB usable"
        )
        raise InfeasibleError("memory", detail, _relaxation(arch, pool, devices))
    return blocks, memory


def context_limit(arch: ModelArchitecture, pool: Pool, num_blocks: int, memory: MemoryBudget) -> int:
    """The longest context the engine serves: the scheduler's, else the model's cut to what the cache holds.

    Raises InfeasibleError("memory") when the scheduler asks for more than the cache holds, as vLLM does at start-up.
    """
    room = num_blocks * pool.kv.block_size
    asked = pool.scheduler.max_model_len
    if not asked:
        return min(arch.max_position_embeddings, room)
    if asked > room:
        short = (asked - room) / pool.kv.block_size * memory.kv_bytes_per_block / GB
        detail = f"one context of {asked} tokens does not fit the KV cache of {room} tokens ({short:.1f} GB short)"
        raise InfeasibleError("memory", detail, f"max_model_len {room}")
    return asked


def activation_bytes(arch: ModelArchitecture, pool: Pool, stage: int) -> float:
    """Peak of the profile run: a forward pass of max_num_batched_tokens, then (last stage) sampling for max_num_seqs.

    Forward: residual, hidden states in and out of a layer, and the widest layer's inner tensors. The two peaks do not
    coincide, but the hidden states of the forward pass are alive while sampling.
    """
    tokens, act = pool.scheduler.max_num_batched_tokens, DTYPE_BYTES[arch.activation_dtype]
    span = stage_layers(arch, pool.parallel)[stage]
    layers = arch.layers[span.start : span.stop]
    inner = [tokens * _mixer_width(arch, layer.mixer, pool.parallel) for layer in layers if layer.mixer]
    inner += [_mlp_elements(arch, layer.mlp, pool.parallel, tokens) for layer in layers if layer.mlp]
    hidden = tokens * arch.hidden_size * act
    forward = 3 * hidden + act * max(inner, default=0.0)
    if stage < pool.parallel.pp - 1:
        return forward
    sampling = pool.scheduler.max_num_seqs * arch.vocab_size * _SAMPLER_BYTES
    return max(forward, 2 * hidden + sampling)


def _mixer_width(arch: ModelArchitecture, mixer: Mixer, parallel: Parallel) -> float:
    """Elements a token of a mixer's projections and output on one device."""
    tp = parallel.tp
    match mixer:
        case Attention():
            heads, kv_heads = mixer.num_heads / tp, kv_heads_per_rank(mixer, tp)
            return heads * (mixer.head_dim + mixer.v_head_dim) + kv_heads * (mixer.head_dim + mixer.v_head_dim)
        case LatentAttention():
            key = mixer.qk_nope_head_dim + mixer.qk_rope_head_dim
            return mixer.num_heads / tp * 2 * (key + mixer.v_head_dim) + mixer.q_lora_rank + latent_width(mixer)
        case _:
            return sum(columns for _, columns in mixer.projections if columns != arch.hidden_size) / tp


def _mlp_elements(arch: ModelArchitecture, mlp: FeedForward, parallel: Parallel, tokens: int) -> float:
    """Elements of an MLP's inner tensors on one device, for `tokens` of each rank.

    Experts (vllm fused_moe): one workspace holds the first GEMM's output or the second's, another the activation, for
    every routed copy of all ranks' tokens, at most a chunk of them at once; with several ranks the gathered tokens too.
    """
    branches = 2 if mlp.gated else 1
    if not isinstance(mlp, MoeMlp):
        return tokens * (branches + 1) * mlp.intermediate_size / parallel.tp
    width, gathered = mlp.latent_size or arch.hidden_size, tokens * parallel.dp
    inner = mlp.intermediate_size / parallel.moe_tp
    routed = min(gathered, _MOE_CHUNK_TOKENS) * mlp.top_k
    beside = 3 * (mlp.shared_intermediate_size + mlp.dense_intermediate_size) / parallel.tp
    exchanged = 2 * gathered * width if parallel.dp > 1 else 0
    return routed * (max(branches * inner, width) + inner) + exchanged + tokens * beside


def graph_bytes(arch: ModelArchitecture, pool: Pool, stage: int) -> float:
    """Device memory of captured CUDA graphs on one device of a stage."""
    layers = len(stage_layers(arch, pool.parallel)[stage])
    nodes = layers * _KERNELS_A_LAYER * _GRAPHS_A_SIZE * len(capture_sizes(pool.scheduler))
    return float(nodes * _GRAPH_NODE_BYTES)


def _stage_blocks(
    arch: ModelArchitecture, pool: Pool, stage: int, device: Device, sequence_tokens: int
) -> tuple[int, MemoryBudget]:
    size, parallel = pool.kv.block_size, pool.parallel
    asked = sequence_tokens or min(
        pool.scheduler.max_model_len or arch.max_position_embeddings, _TYPICAL_SEQUENCE_TOKENS
    )
    blocks = ceil(asked / size)
    state = state_bytes_per_sequence(arch, parallel, stage)
    sequence = kv_bytes_per_sequence(arch, blocks * size, parallel, stage, pool.kv.dtype) + state
    usable = pool.kv.gpu_memory_utilization * device.usable_bytes
    weights = weight_bytes_per_device(arch, parallel, stage) - offloaded_bytes(arch, pool)
    activation = activation_bytes(arch, pool, stage) + outside_bytes(device, parallel)
    graphs = graph_bytes(arch, pool, stage)
    left = usable - weights - activation - graphs
    per_block = sequence / blocks
    memory = MemoryBudget(
        total_bytes=device.usable_bytes,
        usable_bytes=usable,
        weight_bytes=weights,
        activation_bytes=activation,
        graph_bytes=graphs,
        kv_bytes=left,
        kv_bytes_per_block=per_block,
        state_bytes_per_sequence=state,
    )
    # a stage without any cache (only MLP layers) bounds nothing
    return (int(left // per_block) if per_block > 0 else 2**31 - 1), memory


def outside_bytes(device: Device, parallel: Parallel) -> float:
    """What a process takes beside torch's tensors."""
    if device.kind == "cpu":
        return _CPU_PROCESS_BYTES
    return _NON_TORCH_BYTES + (_NCCL_BYTES if parallel.devices > 1 else 0.0)


def _check_policy(pool: Pool) -> None:
    if not 0 < pool.kv.gpu_memory_utilization <= 1:
        raise InputError(pool.kv.gpu_memory_utilization, "gpu_memory_utilization must be above 0 and at most 1")
    if pool.kv.block_size < 1:
        raise InputError(pool.kv.block_size, "block_size must be at least 1 token")
    if pool.kv.num_gpu_blocks < 0:
        raise InputError(pool.kv.num_gpu_blocks, "num_gpu_blocks must not be negative", "0 computes it from memory")


def _relaxation(arch: ModelArchitecture, pool: Pool, devices: Sequence[Device]) -> str:
    """The nearest change that makes it fit, as text: vLLM's own memory share, or the fewest devices; "" if neither."""
    device = min(devices, key=lambda one: one.usable_bytes)
    if pool.kv.gpu_memory_utilization < _USUAL_UTILIZATION:
        usual = replace(pool, kv=replace(pool.kv, gpu_memory_utilization=_USUAL_UTILIZATION))
        if _fits(arch, usual, replace(pool.parallel, layers_per_stage=()), device):
            return f"it fits with gpu_memory_utilization {_USUAL_UTILIZATION}"
    for tp, pp in _wider_degrees(arch, pool, device.per_node):
        parallel = replace(pool.parallel, tp=tp, pp=pp, layers_per_stage=(), ep=_same_ep(pool, tp))
        if _fits(arch, pool, parallel, device):
            return f"it fits on {parallel.devices} x {device.name} with tp={tp} pp={pp}"
    return ""


def _wider_degrees(arch: ModelArchitecture, pool: Pool, per_node: int) -> Iterator[tuple[int, int]]:
    """(tp, pp) with more devices than the pool has, fewest first: tp inside a node, devices in one or whole nodes."""
    heads = {layer.mixer.num_heads for layer in arch.layers if layer.mixer}
    stages = len(arch.layers) if pool.offload.off else 1  # offloaded experts have no pipeline
    degrees = [tp for tp in (1, 2, 4, 8, 16, 32, 64) if tp <= per_node and not any(count % tp for count in heads)]
    for total in range(pool.parallel.tp * pool.parallel.pp + 1, _MAX_RELAXED_DEVICES + 1):
        if total > per_node and total % per_node:
            continue
        for tp in reversed(degrees):
            if total % tp == 0 and total // tp <= stages:
                yield tp, total // tp


def _same_ep(pool: Pool, tp: int) -> int:
    """Expert parallelism that keeps moe_tp as the pool has it: all of tp x dp where experts were spread, else none."""
    return tp * pool.parallel.dp if pool.parallel.ep > 1 else 1


def _fits(arch: ModelArchitecture, pool: Pool, parallel: Parallel, device: Device) -> bool:
    wider = replace(pool, parallel=parallel, stage_devices=())
    return all(_stage_blocks(arch, wider, stage, device, 0)[0] >= 1 for stage in range(parallel.pp))
