"""RoutingSource: a distribution that routing traces are sampled from, and the stock ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.trace import MOST_EXPERTS

_BALANCING = 200  # rounds of scaling rows and columns in turn


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSource:
    """Tokens have a hidden class, experts of each layer a rate for each class; a token's top-k is a Plackett-Luce draw.

    rates: float64[layers, classes, experts] > 0, of any scale: the k experts whose exponential clocks ring first are
    chosen, in that order (the same law as the k largest of log rate + Gumbel noise). A class that is shared by all
    layers of a token is what correlates them. class_share: float64[classes], adds up to 1.
    locality: probability that an expert's clock, and the class, is kept from the sequence's token before; each token's
    own law stays as without it. drift: how much of a Dirichlet popularity of `concentration` is new in each step.
    groups, topk_groups: only experts of the topk_groups groups with the earliest clock are chosen (DeepSeek-V2, arXiv
    2405.04434, section 2.1.3). source: where the rates come from.
    """

    rates: NDArray[np.float64]
    class_share: NDArray[np.float64]
    top_k: int
    locality: float = 0.0
    drift: float = 0.0
    concentration: float = 0.0
    groups: int = 1
    topk_groups: int = 1
    source: str = ""

    def __post_init__(self) -> None:
        experts = self.num_experts
        if experts > MOST_EXPERTS:
            raise InputError(experts, f"experts must be at most {MOST_EXPERTS:,}")
        if self.groups < 1 or experts % self.groups or not 1 <= self.topk_groups <= self.groups:
            raise InputError(f"{self.topk_groups} of {self.groups} groups", f"must divide {experts} experts")
        if not 1 <= self.top_k <= experts // self.groups * self.topk_groups:
            raise InputError(self.top_k, f"experts a token must be 1 to {experts // self.groups * self.topk_groups}")
        if not (np.isfinite(self.rates).all() and (self.rates > 0).all()):
            raise InputError("rates", "must be finite and above 0")
        if not 0.0 <= self.locality < 1.0:
            raise InputError(self.locality, "locality must be at least 0 and below 1")
        if not 0.0 <= self.drift <= 1.0:
            raise InputError(self.drift, "drift must be from 0 to 1 a step")
        if self.drift and (self.concentration <= 0.0 or len(self.class_share) > 1):
            raise InputError("drift", "is for Dirichlet popularities without classes", "dirichlet:0.5,drift=0.01")

    @property
    def num_layers(self) -> int:
        """Layers with experts."""
        return int(self.rates.shape[0])

    @property
    def num_experts(self) -> int:
        """Experts a layer."""
        return int(self.rates.shape[2])


def uniform(shape: MoeShape) -> RoutingSource:
    """Every expert equally likely, tokens and layers independent."""
    return _source(np.ones((len(shape.layers), shape.num_experts)), shape, source="uniform")


def zipf(shape: MoeShape, exponent: float, rng: np.random.Generator) -> RoutingSource:
    """The r-th expert at rate r^-exponent; which is the r-th is drawn for each layer."""
    if not 0.0 <= exponent <= 8.0:
        raise InputError(exponent, "a Zipf exponent must be from 0 to 8")
    ranked = np.arange(1, shape.num_experts + 1, dtype=np.float64) ** -exponent
    rates = np.stack([ranked[rng.permutation(shape.num_experts)] for _ in shape.layers])
    return _source(rates, shape, source=f"zipf:{exponent:g}")


def dirichlet(shape: MoeShape, concentration: float, rng: np.random.Generator, *, drift: float = 0.0) -> RoutingSource:
    """Rates of each layer from a symmetric Dirichlet; small concentration: few experts take all.

    drift: share of the popularity that each step draws anew; it is Dirichlet of the same concentration at every step.
    """
    if not 1e-3 <= concentration <= 1e6:
        raise InputError(concentration, "a Dirichlet concentration must be from 0.001 to 1e6")
    rates = rng.standard_gamma(concentration, (len(shape.layers), shape.num_experts))
    name = f"dirichlet:{concentration:g}" + (f",drift={drift:g}" if drift else "")
    return replace(_source(rates, shape, source=name), drift=drift, concentration=concentration)


def with_classes(source: RoutingSource, classes: int, affinity: float, rng: np.random.Generator) -> RoutingSource:
    """The source with token classes that prefer some experts of every layer, so that its layers are correlated.

    affinity: standard deviation of the log rates over classes. What one draw chooses stays, averaged over classes, as
    it was (rows and columns are scaled in turn until both fit, Sinkhorn 1964).
    """
    if len(source.class_share) > 1:
        raise InputError(source.source, "has classes already")
    if classes < 1 or not 0.0 <= affinity <= 10.0:
        raise InputError(f"{classes} classes, affinity {affinity:g}", "at least 1 class, affinity from 0 to 10")
    wanted = source.rates / source.rates.sum(axis=2, keepdims=True)
    rates = wanted * np.exp(affinity * rng.standard_normal((source.num_layers, classes, source.num_experts)))
    for _ in range(_BALANCING):
        rates /= rates.sum(axis=2, keepdims=True)
        rates *= wanted / rates.mean(axis=1, keepdims=True)
    name = f"{source.source},classes={classes},affinity={affinity:g}"
    return replace(source, rates=floored(rates), class_share=np.full(classes, 1.0 / classes), source=name)


def stretched(source: RoutingSource, layers: int, rng: np.random.Generator) -> RoutingSource:
    """The source over `layers` layers: each behaves as the nearest modelled one, evenly spread, with experts renamed.

    Modelled layers keep their experts' names at the place where they land. A token's class is the same in all layers,
    so that neighbours are as correlated as the modelled layers are: data of distant layers bound it from below.
    """
    spots = np.rint(np.linspace(0, layers - 1, source.num_layers)).astype(int)
    if layers < source.num_layers:
        raise InputError(layers, f"layers must be at least the {source.num_layers} that are modelled")
    nearest = np.abs(np.arange(layers)[:, None] - spots).argmin(axis=1)
    rates = source.rates[nearest]
    for layer in np.setdiff1d(np.arange(layers), spots):
        rates[layer] = rates[layer][:, rng.permutation(source.num_experts)]
    return replace(source, rates=rates)


def floored(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rates with none below 1e-12 of the largest of its row: a clock must be finite."""
    return np.asarray(np.maximum(rates, 1e-12 * rates.max(axis=-1, keepdims=True)))


def _source(rates: NDArray[np.float64], shape: MoeShape, *, source: str) -> RoutingSource:
    """One class, and the shape's groups."""
    return RoutingSource(
        rates=floored(rates)[:, None, :],
        class_share=np.ones(1),
        top_k=shape.top_k,
        groups=shape.groups,
        topk_groups=shape.topk_groups,
        source=source,
    )
