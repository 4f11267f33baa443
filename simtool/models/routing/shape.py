"""MoeShape: what a model says of its routing."""

from __future__ import annotations

from dataclasses import dataclass

from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture, MoeMlp


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeShape:
    """layers: the model's numbers of the layers that have experts. groups, topk_groups: see RoutingSource."""

    layers: tuple[int, ...]
    num_experts: int
    top_k: int
    groups: int = 1
    topk_groups: int = 1


def moe_shape(architecture: ModelArchitecture) -> MoeShape:
    """The routing of a model. Raises InputError for one without experts, or whose layers route differently."""
    found = {number: layer.mlp for number, layer in enumerate(architecture.layers) if isinstance(layer.mlp, MoeMlp)}
    kinds = {(mlp.num_experts, mlp.top_k, mlp.num_groups, mlp.topk_groups) for mlp in found.values()}
    if len(kinds) != 1:
        rule = "has layers that route differently" if kinds else "has no routed experts"
        raise InputError(architecture.name, rule, "a mixture-of-experts model of one kind of layer")
    experts, top_k, groups, topk_groups = kinds.pop()
    return MoeShape(layers=tuple(found), num_experts=experts, top_k=top_k, groups=groups, topk_groups=topk_groups)
