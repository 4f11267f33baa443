"""A shallower model of the same make: for trying a plan on a machine that the whole model does not fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from simtool.errors import InputError
from simtool.models.architecture import Layer, ModelArchitecture
from simtool.models.config import load_architecture
from simtool.plan import Plan


def plan_architecture(plan: Plan, layers: int = 0) -> ModelArchitecture:
    """The plan's model in the plan's weight dtype; with `layers` > 0, cut to so many layers."""
    architecture = load_architecture(plan.model, plan.weight_dtype)
    return reduced(architecture, layers) if layers else architecture


def reduced(arch: ModelArchitecture, layers: int) -> ModelArchitecture:
    """`arch` with `layers` of its layers, in their order.

    Kinds of layers (dense and mixture, windowed and full) keep their shares as far as whole numbers allow, and each
    keeps one where there is room; of a kind the first ones stay. Raises InputError for a number outside 1..all.
    """
    total = len(arch.layers)
    if not 1 <= layers <= total:
        raise InputError(layers, f"layers must be between 1 and the {total} of {arch.name}")
    if layers == total:
        return arch
    left = _shares(Counter(arch.layers), layers)
    kept = []
    for layer in arch.layers:
        if left[layer] > 0:
            left[layer] -= 1
            kept.append(layer)
    name = f"{arch.name}-{layers}-layers"
    return replace(arch, name=name, layers=tuple(kept), published_params=0.0, published_active_params=0.0)


def _shares(counts: Counter[Layer], layers: int) -> dict[Layer, int]:
    """Layers of each kind: the most frequent kinds get one each first, the rest goes to whoever lags most."""
    total = sum(counts.values())
    shares = dict.fromkeys(counts, 0)
    for kind, _ in counts.most_common(layers):
        shares[kind] = 1
    while sum(shares.values()) < layers:
        lagging = max(counts, key=lambda kind: counts[kind] * layers / total - shares[kind])
        shares[lagging] += 1
    return shares
