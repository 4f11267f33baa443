"""Inspection: the facts of a trace that decide where its experts should live, as one JSON-like value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.models.routing.expected import expected_max_load, expected_unique
from simtool.models.routing.observed import batch_loads, correlation, decode_batches, layer_pairs, popularity, reuse
from simtool.models.routing.trace import RoutingTrace

_FORMS_OF = 8  # layers that closed forms of the largest load are taken of, evenly spread
_HOTTEST = 4
_LAYERS_SHOWN = 3


def inspect_routing(trace: RoutingTrace, *, batch: int, ranks: int = 1) -> dict[str, Any]:
    """Unique experts and largest loads of decode batches, reuse, layer correlation, hot experts.

    Each measure has the mean, the least and the most over layers, and `independent`: what tokens that ignore each other
    would give at the trace's own popularity over all steps (closed forms; of the layers' correlation, shuffled tokens).
    batch: requests a step. ranks: expert-parallel ranks, blocks of experts. Raises InputError.
    """
    found = batch_loads(trace, decode_batches(trace, batch), ranks=ranks)
    share = popularity(trace)
    measures = {
        "unique_experts": _over_layers(found.unique, expected_unique(share, batch)),
        "max_expert_tokens": _over_layers(found.max_expert, _forms(share, batch, 0)),
    }
    if ranks > 1:
        mean = batch * trace.top_k / ranks
        largest = _forms(share, batch, ranks)
        measures["max_rank_assignments"] = _over_layers(found.max_rank, largest)
        measures["rank_imbalance"] = _over_layers(found.imbalance, largest / mean)
    again = reuse(trace)
    if np.isfinite(again).all():
        measures["reused_from_token_before"] = _over_layers(again, (share**2).sum(axis=1) / trace.top_k)
    if len(trace.layers) > 1:
        measures["known_from_layer_before"] = _over_layers(correlation(layer_pairs(trace)), _by_chance(trace))
    return {
        "source": trace.source,
        "tokens": trace.tokens,
        "requests": len(np.unique(trace.sequence)),
        "steps": len(np.unique(trace.step)),
        "layers": len(trace.layers),
        "experts": trace.num_experts,
        "top_k": trace.top_k,
        "batch": batch,
        "batches": found.batches,
        "ranks": ranks,
        "measures": measures,
        "hottest": _hottest(trace, share),
    }


def _over_layers(values: NDArray[np.float64], independent: NDArray[np.float64]) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "least": float(values.min()),
        "most": float(values.max()),
        "independent": float(independent.mean()),
    }


def _forms(share: NDArray[np.float64], batch: int, ranks: int) -> NDArray[np.float64]:
    layers = np.unique(np.linspace(0, len(share) - 1, _FORMS_OF).round().astype(int))
    return np.array([expected_max_load(share[layer], batch, ranks) for layer in layers])


def _by_chance(trace: RoutingTrace) -> NDArray[np.float64]:
    """What few tokens make of layers that know nothing of each other: every second layer from shuffled tokens."""
    order = np.random.default_rng(0).permutation(trace.tokens)
    experts = trace.experts.copy()
    experts[:, 1::2] = experts[order, 1::2]
    return correlation(layer_pairs(replace(trace, experts=experts)))


def _hottest(trace: RoutingTrace, share: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The layers whose first expert is the hottest, with their hottest experts and the tokens that choose each."""
    order = np.argsort(-share, axis=1, kind="stable")[:, :_HOTTEST]
    layers = np.argsort(-share.max(axis=1), kind="stable")[:_LAYERS_SHOWN]
    return [
        {
            "layer": trace.layers[layer],
            "experts": order[layer].tolist(),
            "token_share": share[layer, order[layer]].tolist(),
        }
        for layer in layers
    ]
