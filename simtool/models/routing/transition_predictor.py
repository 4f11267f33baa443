"""TransitionPredictor: what tokens with the same experts in an earlier layer went to, as recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.routing.observed import layer_pairs, transitions
from simtool.models.routing.prediction import NOBODY, Prediction
from simtool.models.routing.predictors import check_lookahead
from simtool.models.routing.trace import RoutingTrace

_CHUNK = 2**22  # scores held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionPredictor:
    """The `most` experts of a layer that are likeliest after the token's experts `lookahead` layers before.

    tables: by lookahead (the first is for 1), float64[layers - lookahead, experts, experts], P(expert of the later
    layer given one of the earlier); the token's top_k rows are added. Nothing is known before the first layer.
    """

    tables: tuple[NDArray[np.float64], ...]
    most: int

    def predict(self, trace: RoutingTrace, lookahead: int, rng: np.random.Generator) -> Prediction:  # noqa: ARG002
        """As Predictor says."""
        check_lookahead(lookahead)
        if lookahead > len(self.tables):
            raise InputError(lookahead, "layers ahead have no table", f"they were recorded for 1 to {len(self.tables)}")
        table, layers, number = self.tables[lookahead - 1], len(trace.layers), trace.num_experts
        if table.shape != (layers - lookahead, number, number):
            raise InputError(table.shape, "tables are not of the trace's layers and experts")
        most = min(self.most, number)
        experts = np.full((trace.tokens, layers, most), NOBODY, np.int16)
        size = max(1, _CHUNK // (trace.top_k * number))
        for first in range(0, trace.tokens, size):
            rows = slice(first, first + size)
            for layer in range(layers - lookahead):
                score = table[layer][trace.experts[rows, layer]].sum(axis=1)
                experts[rows, layer + lookahead] = np.argsort(-score, axis=1, kind="stable")[:, :most]
        return Prediction(experts=experts, lookahead=lookahead, first_layer=min(lookahead, layers))


def recorded_transitions(trace: RoutingTrace, lookaheads: int) -> tuple[NDArray[np.float64], ...]:
    """Tables of a trace for 1..lookaheads layers ahead. Raises InputError for more than the trace has layers."""
    if not 1 <= lookaheads < len(trace.layers):
        raise InputError(lookaheads, f"a trace of {len(trace.layers)} layers looks ahead 1 to {len(trace.layers) - 1}")
    return tuple(transitions(layer_pairs(trace, distance=ahead)) for ahead in range(1, lookaheads + 1))
