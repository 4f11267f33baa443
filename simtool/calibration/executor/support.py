"""Which models the executor runs: every part is executed as it stands, or the model is refused."""

from __future__ import annotations

from collections.abc import Iterator

from simtool.calibration.executor.options import FLOATS, ExecutorOptions, compute_dtype
from simtool.errors import InputError
from simtool.models.architecture import (
    Attention,
    DenseMlp,
    FeedForward,
    LatentAttention,
    Layer,
    Mixer,
    ModelArchitecture,
    MoeMlp,
    WeightDtypes,
)
from simtool.models.lowering_shard import make_shard
from simtool.plan import Parallel

_FP8_ON_CPU = "fp8 weights on a CPU"


def check_supported(arch: ModelArchitecture, parallel: Parallel, options: ExecutorOptions) -> None:
    """Raise one InputError that names every part of the model or plan that the executor cannot run."""
    if parallel.sends_tokens:
        rule = "the executor gathers all tokens where several ranks share experts"
        raise InputError(parallel.all2all_backend, rule, "--all2all-backend allgather_reducescatter")
    compute_dtype(arch, options.dtype)
    for stage in range(parallel.pp):
        make_shard(arch, parallel, stage)  # raises where heads or experts cannot be cut evenly
    found = [*_model_parts(arch)]
    dtypes: list[str] = []
    for layer in arch.layers:
        found += _layer_parts(arch, layer)
        dtypes += _dtype_parts(layer.dtypes or arch.dtypes, layer, options)
    if options.capture_sizes and parallel.devices > 1:
        found.append("CUDA graphs over several ranks")
    if not found and len(rotary_sizes(arch)) > 1:
        found.append("layers of unlike heads")
    if found or dtypes:
        hint = (
            "another model" if found else "--weight-dtype bf16" + (", or a GPU" if {*dtypes} == {_FP8_ON_CPU} else "")
        )
        raise InputError(arch.name, f"the executor does not run {', '.join(dict.fromkeys([*found, *dtypes]))}", hint)


def rotary_sizes(arch: ModelArchitecture) -> set[int]:
    """Elements of a head that turn, of all layers."""
    sizes = set()
    for layer in arch.layers:
        match layer.mixer:
            case LatentAttention():
                sizes.add(layer.mixer.qk_rope_head_dim)
            case Attention():
                sizes.add(layer.mixer.head_dim)
    return sizes


def _model_parts(arch: ModelArchitecture) -> Iterator[str]:
    if arch.position_params:
        yield "learned positions"
    if arch.final_norm_params not in (0, arch.hidden_size):
        yield "a final norm that is no RMS norm"


def _layer_parts(arch: ModelArchitecture, layer: Layer) -> Iterator[str]:
    if layer.mixer is None or layer.mlp is None:
        yield "layers of attention or MLP alone"
    if layer.norm_params not in (0, 2 * arch.hidden_size):
        yield "norms other than one RMS norm before each part"
    yield from _mixer_parts(layer.mixer)
    yield from _mlp_parts(layer.mlp)


def _mixer_parts(mixer: Mixer | None) -> Iterator[str]:
    match mixer:
        case None:
            return
        case LatentAttention():
            named = {
                "sparse attention (an indexer)": mixer.indexer is not None,
                "attention output gates": mixer.output_gate,
                "extra attention parameters": mixer.extra_params > 0,
                "rotary heads of odd size": mixer.qk_rope_head_dim % 2 == 1,
                "values wider than keys": mixer.v_head_dim > mixer.qk_nope_head_dim + mixer.qk_rope_head_dim,
            }
        case Attention():
            named = {
                "attention windows": mixer.window > 0,
                "sparse attention (an indexer)": mixer.indexer is not None,
                "attention output gates": mixer.output_gate,
                "biases of the attention's output": mixer.out_bias,
                "KV shared between layers": mixer.kv_shared,
                "values made of keys": mixer.tied_kv,
                "values of another width than keys": mixer.v_head_dim != mixer.head_dim,
                # one RMS norm a head of queries and of keys is known; sinks and layer-wide norms are not
                "extra attention parameters": mixer.extra_params not in (0, 2 * mixer.head_dim),
                "rotary heads of odd size": mixer.head_dim % 2 == 1,
            }
        case _:
            named = {f"recurrent mixers ({mixer.kind})": True}
    yield from (name for name, present in named.items() if present)


def _mlp_parts(mlp: FeedForward | None) -> Iterator[str]:
    match mlp:
        case None:
            return
        case DenseMlp():
            named = {"MLP biases": mlp.bias}
        case MoeMlp():
            named = {
                "experts in a latent width": mlp.latent_size > 0,
                "a dense MLP beside the experts": mlp.dense_intermediate_size > 0,
                "expert biases": mlp.bias,
                "extra parameters beside experts": mlp.extra_params > 0,
            }
    yield from (name for name, present in named.items() if present)


def _dtype_parts(dtypes: WeightDtypes, layer: Layer, options: ExecutorOptions) -> Iterator[str]:
    """fp8 projections are torch's _scaled_mm, which needs a GPU; plain torch has no grouped one for experts."""
    used = {dtypes.attention}
    used |= {dtypes.mlp} if isinstance(layer.mlp, DenseMlp) else {dtypes.shared_experts}
    for dtype in sorted(used - set(FLOATS)):
        if dtype != "fp8":
            yield f"{dtype} weights"
        elif options.device == "cpu":
            yield _FP8_ON_CPU
    if isinstance(layer.mlp, MoeMlp) and dtypes.experts not in FLOATS:
        yield f"{dtypes.experts} experts"
