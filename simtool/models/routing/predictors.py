"""Predictors of experts: each takes a trace and says what it would have predicted, by a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.routing.prediction import NOBODY, Prediction, compacted
from simtool.models.routing.trace import RoutingTrace, loads


class Predictor(Protocol):
    """Says which experts each token will go to."""

    def predict(self, trace: RoutingTrace, lookahead: int, rng: np.random.Generator) -> Prediction:
        """Experts of every layer, told `lookahead` layers before (1: while the layer before it runs).

        Same trace, lookahead and generator, same prediction. Raises InputError for a lookahead that it does not know.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PerfectPredictor:
    """Knows the routing of all layers before the pass begins."""

    def predict(self, trace: RoutingTrace, lookahead: int, rng: np.random.Generator) -> Prediction:  # noqa: ARG002
        """As Predictor says."""
        check_lookahead(lookahead)
        return Prediction(experts=trace.experts, lookahead=lookahead, first_layer=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePredictor:
    """A later layer's gate on an earlier layer's hidden state (Mixtral-offloading, arXiv 2312.17238, section 3.2).

    hit_rates: share of a token's experts that are found, by distance in layers (the first is for 1). It names `top_k`
    experts, the wrong ones (where the layer has so many) drawn by popularity. Before the first layer it knows nothing.
    """

    hit_rates: tuple[float, ...]

    def __post_init__(self) -> None:
        check_shares("hit rate", self.hit_rates)

    def predict(self, trace: RoutingTrace, lookahead: int, rng: np.random.Generator) -> Prediction:
        """As Predictor says."""
        rate = at_lookahead("hit rates", self.hit_rates, lookahead)
        found = rng.random(trace.experts.shape, dtype=np.float32) < rate
        experts = _with_wrong(trace, found, (~found).sum(axis=2), rng)
        experts[:, :lookahead] = NOBODY
        first = min(lookahead, len(trace.layers))
        return Prediction(experts=compacted(experts), lookahead=lookahead, first_layer=first)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedPredictor:
    """A model of given quality, which speaks before the pass begins (ExpertFlow's routing path predictor and the like).

    recall, precision: by lookahead (the first is for 1; one entry holds for all). Each expert of a token is found with
    the probability `recall`; as many wrong ones are added, by popularity, as make the precision, on average, unless the
    layer has too few experts.
    """

    recall: tuple[float, ...]
    precision: tuple[float, ...]

    def __post_init__(self) -> None:
        check_shares("recall", self.recall)
        check_shares("precision", self.precision)
        if min(self.precision) <= 0.0 or len(self.recall) != len(self.precision):
            raise InputError(self.precision, "precision must be above 0 and given as often as recall")

    def predict(self, trace: RoutingTrace, lookahead: int, rng: np.random.Generator) -> Prediction:
        """As Predictor says."""
        known = len(self.recall) == 1
        recall = at_lookahead("recall", self.recall, 1 if known else lookahead)
        precision = self.precision[0 if known else lookahead - 1]
        check_lookahead(lookahead)
        found = rng.random(trace.experts.shape, dtype=np.float32) < recall
        mean = trace.top_k * recall * (1.0 - precision) / precision
        wrong = np.floor(mean + rng.random(found.shape[:2])).astype(np.int64)
        return Prediction(experts=compacted(_with_wrong(trace, found, wrong, rng)), lookahead=lookahead, first_layer=0)


def check_lookahead(lookahead: int) -> None:
    """Raise InputError for one below 1."""
    if lookahead < 1:
        raise InputError(lookahead, "a prediction looks at least 1 layer ahead")


def at_lookahead(name: str, values: tuple[float, ...], lookahead: int) -> float:
    """The value for a distance. Raises InputError where none is given: nothing is extrapolated."""
    check_lookahead(lookahead)
    if lookahead > len(values):
        raise InputError(lookahead, f"layers ahead have no {name}", f"they are given for 1 to {len(values)}")
    return values[lookahead - 1]


def check_shares(name: str, values: tuple[float, ...]) -> None:
    """Raise InputError unless there are some, all from 0 to 1."""
    if not values or not all(0.0 <= value <= 1.0 for value in values):
        raise InputError(values, f"{name} must be from 0 to 1, at least one")


def _with_wrong(
    trace: RoutingTrace, found: NDArray[np.bool_], wrong: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int16]:
    """The found choices, and `wrong` [tokens, layers] experts more that the token does not go to."""
    tokens, layers, _ = trace.experts.shape
    wrong = np.minimum(wrong, trace.num_experts - trace.top_k)
    most = int(wrong.max(initial=0))
    experts = np.full((tokens, layers, trace.top_k + most), NOBODY, np.int16)
    experts[:, :, : trace.top_k] = np.where(found, trace.experts, NOBODY)
    counts = loads(trace.experts, np.zeros(tokens, np.int64), 1, trace.num_experts)[0]
    for layer in range(layers if most else 0):
        clocks = rng.standard_exponential((tokens, trace.num_experts), dtype=np.float32)
        clocks /= (counts[layer] + 1).astype(np.float32)
        np.put_along_axis(clocks, trace.experts[:, layer].astype(np.int64), np.inf, axis=1)
        first = np.argpartition(clocks, most - 1, axis=1)[:, :most]
        first = np.take_along_axis(first, np.argsort(np.take_along_axis(clocks, first, axis=1), axis=1), axis=1)
        named = np.arange(most) < wrong[:, layer, None]
        experts[:, layer, trace.top_k :] = np.where(named, first, NOBODY)
    return experts
