"""LayerChain: the operators of one layer in the order in which they depend on each other, attention left out.

What attention costs depends on the cache, not on the tokens alone, so the caller puts it between the two parts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from simtool.models.architecture import FeedForward, Mixer, MoeMlp, WeightDtypes
from simtool.models.lowering import token_operators
from simtool.models.lowering_mixer import mixer_operators
from simtool.models.lowering_mlp import expert_operators, mlp_operators
from simtool.models.lowering_shard import Shard
from simtool.models.memory import stage_layers
from simtool.models.operators import Array, Operator

_AFTER_ATTENTION = ("output_gate", "o")
_BRANCHES = ("shared_", "dense_")  # run beside the routed experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One operator of a chain. part: the share of the operator that it stands for (the two GEMMs of an expert).

    branch: it needs the MLP's input only; joins: it needs the branches too.
    """

    name: str
    operator: Operator
    part: float = 1.0
    branch: bool = False
    joins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChain:
    """`before` and `after` attention, each operator once (count 1), for a column of token counts."""

    before: tuple[Link, ...]
    after: tuple[Link, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """Layers of a stage that are alike, and how many."""

    mixer: Mixer | None
    mlp: FeedForward | None
    dtypes: WeightDtypes
    count: int


def layer_kinds(shard: Shard) -> tuple[LayerKind, ...]:
    """The kinds of layers that a stage holds, in the order in which they first appear."""
    arch = shard.arch
    span = stage_layers(arch, shard.parallel)[shard.stage]
    kinds = Counter(
        (layer.mixer, layer.mlp, layer.dtypes or arch.dtypes) for layer in arch.layers[span.start : span.stop]
    )
    return tuple(
        LayerKind(mixer=mixer, mlp=mlp, dtypes=dtypes, count=count) for (mixer, mlp, dtypes), count in kinds.items()
    )


def one_layer(shard: Shard, kind: LayerKind) -> Shard:
    """The same shard with a single layer of `kind`."""
    mixers = () if kind.mixer is None else ((kind.mixer, kind.dtypes, 1),)
    mlps = () if kind.mlp is None else ((kind.mlp, kind.dtypes, 1),)
    return replace(shard, mixers=mixers, mlps=mlps)


def layer_chain(shard: Shard, kind: LayerKind, tokens: Array) -> LayerChain:
    """Operators of one layer for `tokens` [b] of each data-parallel rank, in order."""
    one = one_layer(shard, kind)
    known = {operator.name: replace(operator, count=1) for operator in token_operators(one, tokens)}
    known |= {operator.name: operator for operator in expert_operators(one, tokens * shard.parallel.dp)}
    norm, reduce = known["norm_residual"], known.get("tp_all_reduce")
    mixer = mixer_operators(one, tokens)
    before = [norm, *(operator for operator in mixer if operator.name not in _AFTER_ATTENTION)] if kind.mixer else []
    after = sorted(
        (operator for operator in mixer if operator.name in _AFTER_ATTENTION),
        key=lambda operator: _AFTER_ATTENTION.index(operator.name),
    )
    links = [Link(name=operator.name, operator=operator) for operator in after]
    if kind.mixer and reduce is not None:
        links.append(Link(name="attention_all_reduce", operator=reduce))
    if kind.mlp is not None:
        links.append(Link(name="norm_mlp", operator=norm))
        links += _experts(one, known, tokens) if isinstance(kind.mlp, MoeMlp) else _plain(one, tokens)
        links += _closing(one, known)
    return LayerChain(
        before=tuple(Link(name=operator.name, operator=operator) for operator in before), after=tuple(links)
    )


def _plain(one: Shard, tokens: Array) -> list[Link]:
    return [Link(name=operator.name, operator=operator) for operator in mlp_operators(one, tokens)]


def _experts(one: Shard, known: dict[str, Operator], tokens: Array) -> list[Link]:
    """Router, dispatch, the experts' two GEMMs, combine; shared experts and a parallel MLP as branches."""
    beside = mlp_operators(one, tokens)
    branches = [operator for operator in beside if operator.name.startswith(_BRANCHES)]
    routed = [operator for operator in beside if operator not in branches]
    gated = next(mlp.gated for mlp, *_ in one.mlps if isinstance(mlp, MoeMlp))
    up = 2 / 3 if gated else 1 / 2  # of the expert's weights
    links = [Link(name=operator.name, operator=operator) for operator in routed if operator.name != "latent_up"]
    if "moe_dispatch" in known:
        links.append(Link(name="moe_dispatch", operator=known["moe_dispatch"]))
    links += [Link(name=operator.name, operator=operator, branch=True) for operator in branches]
    links += [
        Link(name="experts_up", operator=known["experts"], part=up),
        Link(name="experts_down", operator=known["experts"], part=1.0 - up),
    ]
    if "moe_combine" in known:
        links.append(Link(name="moe_combine", operator=known["moe_combine"]))
    links += [Link(name=operator.name, operator=operator) for operator in routed if operator.name == "latent_up"]
    return links


def _closing(one: Shard, known: dict[str, Operator]) -> list[Link]:
    """What joins the TP group after the MLP."""
    if "moe_all_gather" in known:
        return [Link(name="moe_all_gather", operator=known["moe_all_gather"], joins=True)]
    if one.parallel.tp > 1:
        return [Link(name="mlp_all_reduce", operator=known["tp_all_reduce"], joins=True)]
    return []
