"""Feed-forward parts: dense MLPs, routers, shared experts on a rank's tokens; routed experts on all ranks' tokens."""

from __future__ import annotations

from simtool.models.architecture import DenseMlp, MoeMlp, WeightDtypes
from simtool.models.lowering_exchange import exchange_operators
from simtool.models.lowering_kernels import constant, element_bytes, elementwise, projection
from simtool.models.lowering_shard import Shard
from simtool.models.operators import Array, Operator
from simtool.models.quantization import bytes_per_element
from simtool.models.routing.reach import reached_share, touched_experts


def mlp_operators(shard: Shard, tokens: Array) -> list[Operator]:
    """Dense MLPs, and of mixture layers all that works on the rank's own `tokens` [b]."""
    operators: list[Operator] = []
    for mlp, dtypes, count in shard.mlps:
        if isinstance(mlp, DenseMlp):
            operators += _dense(shard, "", mlp.intermediate_size, mlp.gated, dtypes.mlp, dtypes, count, tokens)
        else:
            operators += _beside_experts(shard, mlp, dtypes, count, tokens)
    return operators


def _dense(
    shard: Shard,
    prefix: str,
    intermediate: float,
    gated: bool,
    dtype: str,
    dtypes: WeightDtypes,
    count: int,
    tokens: Array,
    *,
    replicated: bool = False,
) -> list[Operator]:
    """Fused gate and up (column parallel), activation, down (row parallel)."""
    hidden, act = shard.arch.hidden_size, element_bytes(shard.arch.activation_dtype)
    inner = intermediate / (1 if replicated else shard.parallel.tp)
    branches = 2 if gated else 1
    up = f"{prefix}gate_up" if gated else f"{prefix}up"
    activation = act * inner * (branches + 1)
    return [
        projection(shard, up, count, tokens, branches * inner, hidden, dtype, dtypes),
        elementwise(
            f"{prefix}activation",
            count=count,
            tokens=tokens,
            bytes_per_token=activation,
            dtype=shard.arch.activation_dtype,
            kind="activation",
        ),
        projection(shard, f"{prefix}down", count, tokens, hidden, inner, dtype, dtypes),
    ]


def _beside_experts(shard: Shard, mlp: MoeMlp, dtypes: WeightDtypes, count: int, tokens: Array) -> list[Operator]:
    """Router, shared experts, latent projections, parallel dense MLP. Sequence-parallel where vLLM is."""
    hidden, cut = shard.arch.hidden_size, shard.sequence_parallel
    own = tokens / shard.parallel.tp if cut else tokens
    routing = 4.0 * mlp.num_experts + 8.0 * mlp.top_k  # fp32 scores read, ids and weights written
    operators = [
        projection(shard, "router", count, own, mlp.num_experts, hidden, dtypes.other, dtypes),
        elementwise("router_topk", count=count, tokens=own, bytes_per_token=routing, dtype="fp32"),
    ]
    if mlp.shared_intermediate_size:
        width, gated = mlp.shared_intermediate_size, mlp.shared_gated
        operators += _dense(shard, "shared_", width, gated, dtypes.shared_experts, dtypes, count, own, replicated=cut)
    if mlp.latent_size:
        operators += [
            projection(shard, "latent_down", count, own, mlp.latent_size, hidden, dtypes.shared_experts, dtypes),
            projection(shard, "latent_up", count, own, hidden, mlp.latent_size, dtypes.shared_experts, dtypes),
        ]
    if mlp.dense_intermediate_size:
        operators += _dense(shard, "dense_", mlp.dense_intermediate_size, True, dtypes.mlp, dtypes, count, tokens)
    return operators


def expert_operators(shard: Shard, total_tokens: Array) -> list[Operator]:
    """Routed experts with dispatch and combine, for `total_tokens` [b] of all data-parallel ranks together."""
    operators: list[Operator] = []
    for mlp, dtypes, count in shard.mlps:
        if isinstance(mlp, MoeMlp):
            width = mlp.latent_size or shard.arch.hidden_size
            operators += exchange_operators(shard, mlp, dtypes, width, count, total_tokens)
            operators.append(_experts(shard, mlp, dtypes, width, count, total_tokens))
    return operators


def _experts(shard: Shard, mlp: MoeMlp, dtypes: WeightDtypes, width: int, count: int, tokens: Array) -> Operator:
    """Grouped GEMMs of a device's num_experts/ep experts, each cut moe_tp ways, under uniform routing.

    Bytes: the weights of the experts that got a token, and inputs, intermediates and outputs of the routed tokens.
    """
    ep, moe_tp = shard.parallel.ep, shard.parallel.moe_tp
    inner, branches = mlp.intermediate_size / moe_tp, 2 if mlp.gated else 1
    matrices = width * inner * (branches + 1)
    routed = tokens * mlp.top_k / ep
    act = element_bytes(shard.arch.activation_dtype)
    weights = touched_experts(mlp, tokens) / ep * matrices
    sizes: dict[str, float] = {"hidden": width, "inter": mlp.intermediate_size, "top_k": mlp.top_k}
    sizes |= {"num_experts": mlp.num_experts, "moe_tp": moe_tp, "moe_ep": ep}
    sizes |= {"received": reached_share(mlp, ep)} if shard.parallel.sends_tokens else {}
    return Operator(
        name="experts",
        family="moe",
        count=count,
        dtype=dtypes.experts,
        dims={"tokens": tokens} | {name: constant(size, tokens) for name, size in sizes.items()},
        flops=2.0 * routed * matrices,
        hbm_bytes=weights * bytes_per_element(dtypes.experts, dtypes.scale_bytes_per_element)
        + routed * act * (2 * width + (branches + 1) * inner),
        launches=3,
    )


def expert_operators_alone(shard: Shard, mlp: MoeMlp, dtypes: WeightDtypes, tokens: Array) -> list[Operator]:
    """One routed expert by itself with `tokens` [b] of its own: gathered, two GEMMs, scattered; cut over tp."""
    width, act = mlp.latent_size or shard.arch.hidden_size, element_bytes(shard.arch.activation_dtype)
    inner, branches = mlp.intermediate_size / shard.parallel.tp, 2 if mlp.gated else 1
    activation, dtype = act * inner * (branches + 1), shard.arch.activation_dtype
    return [
        elementwise("expert_gather", count=1, tokens=tokens, bytes_per_token=2 * act * width, dtype=dtype),
        projection(shard, "expert_up", 1, tokens, branches * inner, width, dtypes.experts, dtypes),
        elementwise(
            "expert_activation", count=1, tokens=tokens, bytes_per_token=activation, dtype=dtype, kind="activation"
        ),
        projection(shard, "expert_down", 1, tokens, width, inner, dtypes.experts, dtypes),
        elementwise("expert_scatter", count=1, tokens=tokens, bytes_per_token=3 * act * width, dtype=dtype),
    ]
