"""Memory: weight, KV cache and recurrent state bytes, of the whole model and of one device under a parallel plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil

from simtool.errors import InputError
from simtool.models.architecture import Attention, LatentAttention, Layer, Mixer, ModelArchitecture, RecurrentMixer
from simtool.models.parameters import WeightSlice, layer_slices
from simtool.models.quantization import bytes_per_element, cache_bytes_per_element
from simtool.plan import Parallel

SINGLE = Parallel()
# DeepSeek sparse attention with an fp8 cache: 512 fp8 values, four fp32 scales, 64 bf16 rope values a token
# (vLLM `fp8_ds_mla`, vllm/v1/attention/backends/mla/flashmla_sparse.py: 656 bytes).
_SPARSE_LATENT_SCALE_GROUP = 128


def stage_layers(arch: ModelArchitecture, parallel: Parallel) -> tuple[range, ...]:
    """Layers of each pipeline stage.

    Without `layers_per_stage`: an even split, the remainder one layer each to the stages before the last, from its
    side (vllm/distributed/utils.py, get_pp_indices). Raises InputError where the split does not cover the layers.
    """
    count, stages = len(arch.layers), parallel.pp
    if stages > count:
        raise InputError(stages, f"pipeline stages exceed the {count} layers of {arch.name}", f"pp of at most {count}")
    sizes = list(parallel.layers_per_stage)
    if not sizes:
        sizes = [count // stages] * stages
        for place in range(2, count % stages + 2):
            sizes[-place] += 1
    if len(sizes) != stages or sum(sizes) != count or min(sizes) < 1:
        rule = f"layers per stage must be {stages} positive numbers that add up to {count}"
        raise InputError(tuple(sizes), rule)
    ends = [sum(sizes[: index + 1]) for index in range(stages)]
    return tuple(range(end - size, end) for end, size in zip(ends, sizes, strict=True))


def weight_bytes(arch: ModelArchitecture) -> float:
    """Bytes of all weights that serving loads: MTP blocks left out, encoders of other modalities included."""
    return weight_bytes_per_device(arch, SINGLE, 0)


def weight_bytes_per_device(arch: ModelArchitecture, parallel: Parallel, stage: int) -> float:
    """Weight bytes on the fullest device of pipeline stage `stage` (0-based).

    Attention and dense layers are cut over tp and repeated on every dp rank; experts are spread over tp × dp, ep ways
    by whole experts and moe_tp ways inside them. The vocabulary is cut over tp: embedding on the first stage, LM head
    on the last (a tied matrix is on both when they differ). Encoders are on the first stage, cut over tp.
    """
    layers = _stage(arch, parallel, stage)
    total = sum(
        count * slice_bytes_per_device(arch, layer, item, parallel)
        for layer, count in Counter(layers).items()
        for item in layer_slices(arch, layer)
    )
    vocabulary = arch.vocab_size * arch.hidden_size / parallel.tp
    first, last = stage == 0, stage == parallel.pp - 1
    other_bytes = bytes_per_element(arch.dtypes.other)
    if first:
        total += vocabulary * bytes_per_element(arch.dtypes.embedding, arch.dtypes.scale_bytes_per_element)
        total += (arch.position_params + arch.extra_params / parallel.tp) * other_bytes
    if last:
        total += arch.final_norm_params * other_bytes
        if not (arch.tie_word_embeddings and first):
            total += vocabulary * bytes_per_element(arch.dtypes.lm_head, arch.dtypes.scale_bytes_per_element)
    return total


def slice_bytes_per_device(arch: ModelArchitecture, layer: Layer, item: WeightSlice, parallel: Parallel) -> float:
    """Bytes of one weight slice on the fullest device of its stage."""
    scale = (layer.dtypes or arch.dtypes).scale_bytes_per_element
    return item.elements * bytes_per_element(item.dtype, scale) * device_share(item, parallel)


def device_share(item: WeightSlice, parallel: Parallel) -> float:
    """Share of a weight slice on the fullest device: KV heads are repeated when there are fewer than ranks."""
    match item.shard:
        case "whole":
            return 1.0
        case "tp":
            return 1.0 / parallel.tp
        case "shared":
            # vLLM's sequence-parallel experts (ParallelConfig.use_sequence_parallel_moe) keep shared ones whole.
            return 1.0 if min(parallel.tp, parallel.dp, parallel.ep) > 1 else 1.0 / parallel.tp
        case "kv":
            return ceil(item.units / parallel.tp) / item.units
        case "experts":
            return ceil(item.units / parallel.ep) / item.units / max(1, parallel.moe_tp)


def kv_bytes_per_token(arch: ModelArchitecture, kv_dtype: str = "auto") -> float:
    """Cache bytes one token adds over all layers, while the context is shorter than every window."""
    return kv_bytes_per_token_per_device(arch, SINGLE, 0, kv_dtype)


def kv_bytes_per_token_per_device(
    arch: ModelArchitecture, parallel: Parallel, stage: int, kv_dtype: str = "auto"
) -> float:
    """Cache bytes one token of a rank's own sequences adds on one device of `stage`, windows not yet full."""
    mixers = _mixers(_stage(arch, parallel, stage))
    return sum(mixer_kv_bytes(arch, mixer, parallel, kv_dtype) for mixer in mixers)


def window_kv_bytes(
    arch: ModelArchitecture, parallel: Parallel = SINGLE, stage: int = 0, kv_dtype: str = "auto"
) -> float:
    """Bytes a sequence's windowed layers hold once full, a device: `window` tokens each (vLLM's hybrid KV manager)."""
    windowed = [mixer for mixer in _mixers(_stage(arch, parallel, stage)) if cache_window_tokens(mixer)]
    return sum(mixer_kv_bytes(arch, mixer, parallel, kv_dtype) * cache_window_tokens(mixer) for mixer in windowed)


def full_kv_bytes_per_token(
    arch: ModelArchitecture, parallel: Parallel = SINGLE, stage: int = 0, kv_dtype: str = "auto"
) -> float:
    """Cache bytes a token adds once every window is full: the layers without a window, a device."""
    unbounded = [mixer for mixer in _mixers(_stage(arch, parallel, stage)) if not cache_window_tokens(mixer)]
    return sum(mixer_kv_bytes(arch, mixer, parallel, kv_dtype) for mixer in unbounded)


def kv_bytes_per_sequence(
    arch: ModelArchitecture,
    context_tokens: int,
    parallel: Parallel = SINGLE,
    stage: int = 0,
    kv_dtype: str = "auto",
) -> float:
    """Cache bytes on a device of a sequence of `context_tokens`: windowed layers hold at most their window."""
    total = 0.0
    for mixer in _mixers(_stage(arch, parallel, stage)):
        window = cache_window_tokens(mixer)
        tokens = min(context_tokens, window) if window else context_tokens
        total += tokens * mixer_kv_bytes(arch, mixer, parallel, kv_dtype)
    return total


def state_bytes_per_sequence(arch: ModelArchitecture, parallel: Parallel = SINGLE, stage: int = 0) -> float:
    """Bytes of recurrent and convolution state a sequence keeps on a device, whatever its length; heads cut over tp."""
    return sum(mixer_state_bytes(arch, mixer, parallel) for mixer in _mixers(_stage(arch, parallel, stage)))


def cache_window_tokens(mixer: Mixer | None) -> int:
    """Tokens a layer's cache is bounded to; 0: unbounded (or no cache)."""
    return mixer.window if isinstance(mixer, Attention) else 0


def mixer_state_bytes(arch: ModelArchitecture, mixer: Mixer | None, parallel: Parallel) -> float:
    """State bytes a sequence takes in one layer on one device; 0 for a layer without a recurrence."""
    if not isinstance(mixer, RecurrentMixer):
        return 0.0
    state = mixer.state_elements * cache_bytes_per_element(mixer.state_dtype)
    return (state + mixer.conv_elements * cache_bytes_per_element(arch.activation_dtype)) / parallel.tp


def mixer_kv_bytes(arch: ModelArchitecture, mixer: Mixer | None, parallel: Parallel, kv_dtype: str = "auto") -> float:
    """Cache bytes a token takes in one layer on one device: KV heads cut over tp, a latent cache whole on each rank."""
    dtype = arch.kv_dtype if kv_dtype == "auto" else kv_dtype
    element_bytes = cache_bytes_per_element(dtype)
    match mixer:
        case Attention():
            if mixer.kv_shared:
                return 0.0
            heads = ceil(mixer.num_kv_heads / parallel.tp)
            index_bytes = mixer.indexer.key_bytes if mixer.indexer is not None else 0
            return heads * (mixer.head_dim + mixer.v_head_dim) * element_bytes + index_bytes
        case LatentAttention():
            return _latent_kv_bytes(mixer, element_bytes)
        case _:
            return 0.0


def _latent_kv_bytes(mixer: LatentAttention, element_bytes: float) -> float:
    if mixer.indexer is None:
        return (mixer.kv_lora_rank + mixer.qk_rope_head_dim) * element_bytes
    index_bytes = mixer.indexer.key_bytes
    if element_bytes >= 2:
        return (mixer.kv_lora_rank + mixer.qk_rope_head_dim) * element_bytes + index_bytes
    scales = 4 * mixer.kv_lora_rank / _SPARSE_LATENT_SCALE_GROUP
    return mixer.kv_lora_rank * element_bytes + scales + 2 * mixer.qk_rope_head_dim + index_bytes


def _stage(arch: ModelArchitecture, parallel: Parallel, stage: int) -> Sequence[Layer]:
    if not 0 <= stage < parallel.pp:
        raise InputError(stage, f"a pipeline of {parallel.pp} stages has no such stage")
    span = stage_layers(arch, parallel)[stage]
    return arch.layers[span.start : span.stop]


def _mixers(layers: Sequence[Layer]) -> list[Mixer]:
    return [layer.mixer for layer in layers if layer.mixer is not None]
