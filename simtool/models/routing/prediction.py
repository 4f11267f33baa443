"""Prediction: the experts that are expected before a layer's router has spoken, and how often that is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.models.routing.trace import RoutingTrace

NOBODY = -1  # fills rows that predict fewer experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """experts: int16[tokens, layers, most], the rows of a trace, likeliest first, -1 where fewer are predicted.

    lookahead: layers between what is known and what is predicted. first_layer: layers before it have no prediction
    (0: they are predicted before the pass begins). A batch's prediction is the union of its rows':
    `needed(prediction.experts[rows], num_experts)`, as for a trace.
    """

    experts: NDArray[np.int16]
    lookahead: int
    first_layer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Of the layers that are predicted. recall: of the experts that tokens go to, the share that was predicted.

    precision: of those predicted, the share that tokens go to (NaN without predictions). predicted: experts a token and
    layer. layer_recall: float64[layers], NaN for layers without a prediction.
    """

    recall: float
    precision: float
    predicted: float
    layer_recall: NDArray[np.float64]


def accuracy(prediction: Prediction, trace: RoutingTrace) -> Accuracy:
    """How right it is, token by token."""
    hits = hit(prediction, trace).sum(axis=2)  # [tokens, layers]
    count = (prediction.experts >= 0).sum(axis=2)
    by_layer = hits.mean(axis=0) / trace.top_k if len(hits) else np.full(len(trace.layers), np.nan)
    by_layer[: prediction.first_layer] = np.nan
    hits, count = hits[:, prediction.first_layer :], count[:, prediction.first_layer :]
    return Accuracy(
        recall=float(hits.sum() / (hits.size * trace.top_k)) if hits.size else float("nan"),
        precision=float(hits.sum() / count.sum()) if count.sum() else float("nan"),
        predicted=float(count.mean()) if count.size else 0.0,
        layer_recall=by_layer,
    )


def hit(prediction: Prediction, trace: RoutingTrace) -> NDArray[np.bool_]:
    """Which of the trace's choices were predicted, bool[tokens, layers, top_k]."""
    return np.asarray((trace.experts[:, :, :, None] == prediction.experts[:, :, None, :]).any(axis=3))


def compacted(experts: NDArray[np.int16]) -> NDArray[np.int16]:
    """The same with -1 behind the experts of each row, and no more columns than the longest row needs."""
    order = np.argsort(experts < 0, axis=2, kind="stable")
    width = max(1, int((experts >= 0).sum(axis=2).max(initial=0)))
    return np.take_along_axis(experts, order, axis=2)[:, :, :width]
