"""Latent classes behind pairs of expert choices: expectation maximisation with no expert chosen above certainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 400
_PSEUDO_COUNT = 0.5  # of each expert in each class, so that nothing that was not seen is impossible
_MOST_INCLUSION = 0.995  # of an expert, given the class: a rate must stay finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """share: float64[classes]. chosen: float64[layers, classes, experts], a choice's law given the class, sums to 1."""

    share: NDArray[np.float64]
    chosen: NDArray[np.float64]

    def pairs(self) -> NDArray[np.float64]:
        """Joint law of the choices of neighbouring layers, float64[layers - 1, experts, experts]."""
        return np.asarray(np.einsum("z,lzi,lzj->lij", self.share, self.chosen[:-1], self.chosen[1:]))


def fit_classes(pairs: NDArray[np.float64], classes: int, top_k: int, rng: np.random.Generator) -> Classes:
    """The classes that make pairs float64[layers - 1, experts, experts] likeliest (Hofmann 1999, for several tables).

    A token's class is the same in all layers. Given the class an expert takes at most 1 / top_k of the choices, since a
    token chooses it once.
    """
    layers, experts = len(pairs) + 1, pairs.shape[1]
    marginal = np.concatenate((pairs.sum(axis=2), pairs[-1:].sum(axis=1)))  # [layers, experts]
    start = marginal[:, None] * np.exp(0.5 * rng.standard_normal((layers, classes, experts)))
    fitted = Classes(share=np.full(classes, 1.0 / classes), chosen=_capped(start + _PSEUDO_COUNT, top_k))
    for _ in range(_ROUNDS if classes > 1 else 1):
        fitted = _round(fitted, pairs, top_k)
    return _with_popularity(fitted, marginal, top_k)


def _with_popularity(fitted: Classes, counts: NDArray[np.float64], top_k: int) -> Classes:
    """The classes with the popularity that was counted, which the limit on single experts has moved."""
    wanted = counts / counts.sum(axis=1, keepdims=True)
    chosen = fitted.chosen
    for _ in range(_ROUNDS):
        found = np.einsum("z,lze->le", fitted.share, chosen)
        chosen = _capped(chosen * (wanted / np.maximum(found, 1e-300))[:, None], top_k)
    return Classes(share=fitted.share, chosen=chosen)


def _round(now: Classes, pairs: NDArray[np.float64], top_k: int) -> Classes:
    """One round: counts shared among classes by how likely each explains them, then the likeliest parameters."""
    counts = np.full_like(now.chosen, _PSEUDO_COUNT)
    weights = now.share[:, None]
    ratio = pairs / np.maximum(now.pairs(), 1e-300)
    for layer, table in enumerate(ratio):
        one, other = now.chosen[layer], now.chosen[layer + 1]
        counts[layer] += weights * one * (other @ table.T)
        counts[layer + 1] += weights * other * (one @ table)
    share = counts.sum(axis=(0, 2))
    return Classes(share=share / share.sum(), chosen=_capped(counts, top_k))


def _capped(counts: NDArray[np.float64], top_k: int) -> NDArray[np.float64]:
    """The likeliest laws for counts [..., experts] with none above the most: min(most, count / c)."""
    most = min(1.0, _MOST_INCLUSION / top_k) if top_k > 1 else 1.0
    law = counts / counts.sum(axis=-1, keepdims=True)
    for _ in range(counts.shape[-1]):
        full = law >= most
        if not (law > most + 1e-12).any():
            break
        room = 1.0 - most * full.sum(axis=-1, keepdims=True)
        rest = np.where(full, 0.0, counts)
        law = np.where(full, most, rest * room / np.maximum(rest.sum(axis=-1, keepdims=True), 1e-300))
    return np.asarray(np.minimum(law, most))
