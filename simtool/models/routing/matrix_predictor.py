"""MatrixPredictor: recorded expert activation matrices, matched to what a sequence has activated so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.routing.prediction import Prediction
from simtool.models.routing.predictors import check_lookahead
from simtool.models.routing.trace import RoutingTrace, loads

_CHUNK = 2**22  # counts held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixPredictor:
    """Activation-matrix match as in MoE-Infinity (arXiv 2401.14361, section 4).

    matrices: float32[matrices, layers, experts], each row of unit length. A sequence's own matrix counts its tokens
    before this one and the layers of this one that are known. The recorded one of the highest cosine, averaged over
    layers, is taken, and its `most` strongest experts of the layer are predicted (fewer where it has fewer).
    """

    matrices: NDArray[np.float32]
    most: int

    def predict(self, trace: RoutingTrace, lookahead: int, rng: np.random.Generator) -> Prediction:  # noqa: ARG002
        """As Predictor says; before a sequence's first token and layer, the first recorded matrix is as good as any."""
        check_lookahead(lookahead)
        if self.matrices.shape[1:] != (len(trace.layers), trace.num_experts):
            raise InputError(self.matrices.shape, "matrices are not of the trace's layers and experts")
        order = np.argsort(-self.matrices, axis=2, kind="stable")[:, :, : self.most].astype(np.int16)
        strongest = np.where(np.take_along_axis(self.matrices, order.astype(np.int64), axis=2) > 0, order, -1)
        layers = np.arange(len(trace.layers))
        parts = [
            strongest[self._matched(trace, rows, lookahead), layers]
            for rows in _sequences(trace, len(trace.layers) * max(trace.num_experts, len(self.matrices)))
        ]
        experts = np.concatenate(parts) if parts else np.empty((0, len(trace.layers), self.most))
        return Prediction(experts=experts.astype(np.int16), lookahead=lookahead, first_layer=0)

    def _matched(self, trace: RoutingTrace, rows: slice, lookahead: int) -> NDArray[np.int64]:
        """The matrix that each token's each layer is predicted from, int64[tokens, layers].

        The layers' cosines with what is known without this token, and with it, are summed up to and from the layer.
        """
        experts, sequence = trace.experts[rows], trace.sequence[rows]
        own = loads(experts, np.arange(len(experts)), len(experts), trace.num_experts)
        ends = np.cumsum(own, axis=0)
        first = np.searchsorted(sequence, sequence)  # the sequence's first row
        with_token = ends - np.where(first > 0, 1, 0)[:, None, None] * ends[first - 1]
        near, far = self._cosine(with_token), self._cosine(with_token - own)  # [tokens, layers, matrices]
        gained = np.cumsum(near - far, axis=1)  # of layer 0..l
        score = np.broadcast_to(far.sum(axis=1, keepdims=True), far.shape).copy()
        score[:, lookahead:] += gained[:, : far.shape[1] - lookahead]
        return np.asarray(score.argmax(axis=2))

    def _cosine(self, counts: NDArray[Any]) -> NDArray[np.float32]:
        """Of each layer with each recorded matrix's, 0 where nothing was activated."""
        length = np.sqrt((counts.astype(np.float32) ** 2).sum(axis=2, keepdims=True))
        unit = counts / np.maximum(length, 1.0)
        return np.asarray(np.einsum("tle,mle->tlm", unit.astype(np.float32), self.matrices, optimize=True))


def recorded_matrices(trace: RoutingTrace, most: int = 0) -> NDArray[np.float32]:
    """Activation matrices of a trace's sequences, rows of unit length: float32[matrices, layers, experts].

    most: matrices to keep, spread evenly over the sequences (0: all). Raises InputError for a trace without tokens.
    """
    if not trace.tokens:
        raise InputError("the trace", "has no tokens to record activations of")
    _, number = np.unique(trace.sequence, return_inverse=True)
    count = int(number[-1]) + 1
    kept = np.unique(np.linspace(0, count - 1, min(most or count, count)).round().astype(np.int64))
    rows = np.isin(number, kept)
    counts = loads(trace.experts[rows], np.searchsorted(kept, number[rows]), len(kept), trace.num_experts)
    length = np.sqrt((counts.astype(np.float64) ** 2).sum(axis=2, keepdims=True))
    return np.asarray(counts / np.maximum(length, 1.0), np.float32)


def _sequences(trace: RoutingTrace, size: int) -> Iterator[slice]:
    """Rows of whole sequences, as many together as fit into a chunk of `size` counts a row."""
    starts = np.append(np.flatnonzero(np.diff(trace.sequence, prepend=-1)), trace.tokens)
    first = 0
    while first < len(starts) - 1:
        fits = int(np.searchsorted(starts, starts[first] + _CHUNK // size, side="right")) - 1
        last = max(first + 1, min(fits, len(starts) - 1))
        yield slice(int(starts[first]), int(starts[last]))
        first = last
