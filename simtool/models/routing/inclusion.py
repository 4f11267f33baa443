"""Inclusion: how likely each expert is among a token's top-k, from Plackett-Luce rates, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.routing.source import RoutingSource

_NODES = 160
_EARLIEST = 1e-11  # expected rings of the fastest clock before the first node
_LATEST = 40.0  # expected rings of the k-th fastest clock at the last node
_INVERSION_ROUNDS = 60
_INVERSION_ERROR = 1e-7
MOST_INCLUSION = 0.9999  # an expert that every token chooses would need an infinite rate


def inclusion_probabilities(rates: NDArray[np.float64], top_k: int) -> NDArray[np.float64]:
    """P(expert is among the first top_k clocks), float64[rows, experts], for rates float64[rows, experts].

    Exact up to quadrature (1e-8): the integral over the time t at which the expert's clock rings, of its density times
    the chance that fewer than top_k of the others have rung. The latter is a Poisson-binomial: clocks are independent.
    Each row adds up to top_k.
    """
    rows, experts = rates.shape
    if top_k == experts:
        return np.ones_like(rates)
    if top_k == 1:
        return np.asarray(rates / rates.sum(axis=1, keepdims=True))
    fastest = -np.sort(-rates, axis=1)
    first, last = np.log(_EARLIEST / fastest[:, 0]), np.log(_LATEST / fastest[:, top_k - 1])
    log_t = np.linspace(first, last, _NODES)  # [nodes, rows]
    spacing = (last - first) / (_NODES - 1)
    found = np.empty_like(rates)
    for row in range(rows):
        mean = np.exp(log_t[:, row, None]) * rates[row]  # [nodes, experts]: rings expected by t
        found[row] = (mean * np.exp(-mean) * _fewer_than(top_k, -np.expm1(-mean))).sum(axis=0) * spacing[row]
    return np.asarray(np.minimum(found, 1.0))


def rates_of(inclusion: NDArray[np.float64], top_k: int) -> NDArray[np.float64]:
    """Rates float64[rows, experts] whose inclusion probabilities are `inclusion`, each row of which adds up to top_k.

    Fixed point from 1 - exp(-rate): each rate is multiplied by wanted over found odds of being included. Raises
    InputError for probabilities that are not between 0 and 1 or do not add up.
    """
    total = inclusion.sum(axis=1)
    if (inclusion < 0).any() or (inclusion > 1).any() or np.abs(total - top_k).max(initial=0.0) > 1e-6 * top_k:
        raise InputError("inclusion probabilities", f"must be from 0 to 1 and add up to {top_k}")
    wanted = np.clip(inclusion, 1e-9, MOST_INCLUSION)
    rates = -np.log1p(-wanted)
    for _ in range(_INVERSION_ROUNDS):
        found = np.clip(inclusion_probabilities(rates, top_k), 1e-15, 1 - 1e-12)
        if np.abs(found - wanted).max() < _INVERSION_ERROR:
            break
        rates = rates * np.log1p(-wanted) / np.log1p(-found)
    return np.asarray(rates / rates.sum(axis=1, keepdims=True))


def source_inclusion(source: RoutingSource) -> NDArray[np.float64]:
    """P(a token of any class chooses the expert), float64[layers, experts]; of step 0 where popularity drifts.

    Locality does not change it. Raises InputError for group-limited routing other than uniform: there is no closed
    form, sample it.
    """
    if source.topk_groups < source.groups:
        if np.ptp(source.rates) > 1e-12 * source.rates.max():
            raise InputError("group-limited routing", "has no closed form unless it is uniform", "sample it")
        return np.full((source.num_layers, source.num_experts), source.top_k / source.num_experts)
    flat = source.rates.reshape(-1, source.num_experts)
    order = np.argsort(flat, axis=1)
    ascending, row = np.unique(np.take_along_axis(flat, order, axis=1), axis=0, return_inverse=True)
    found = np.empty_like(flat)  # layers are often one another's permutations
    np.put_along_axis(found, order, inclusion_probabilities(ascending, source.top_k)[row.ravel()], axis=1)
    return np.asarray(np.einsum("lce,c->le", found.reshape(source.rates.shape), source.class_share))


def _fewer_than(count: int, rung: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(fewer than `count` of all but the expert have rung), [nodes, experts], for P(rung) [nodes, experts].

    Numbers of those before and behind the expert are summed: leaving one out by division would lose all digits.
    """
    nodes, experts = rung.shape
    before, behind = (np.zeros((experts, nodes, count)) for _ in range(2))
    before[0, :, 0] = behind[-1, :, 0] = 1.0
    for place in range(1, experts):
        before[place] = _one_more(before[place - 1], rung[:, place - 1])
        behind[-1 - place] = _one_more(behind[-place], rung[:, experts - place])
    most_behind = np.cumsum(behind, axis=2)[:, :, ::-1]
    return np.asarray(np.einsum("enk,enk->ne", before, most_behind))


def _one_more(counts: NDArray[np.float64], rung: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distribution of a count [nodes, count] with one more that rings with probability `rung` [nodes]."""
    found = counts * (1.0 - rung)[:, None]
    found[:, 1:] += counts[:, :-1] * rung[:, None]
    return found
