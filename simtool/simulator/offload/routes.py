"""RouteBank: which experts every token of a serving run goes to, whatever batch it is computed in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.routing.predictors import GatePredictor, LearnedPredictor, PerfectPredictor, Predictor
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source_text import is_trace_file, parse_source
from simtool.models.routing.trace import RoutingTrace, loads
from simtool.models.routing.trace_file import read_routing
from simtool.plan import ExpertOffload

_CLOCKS = 2**24  # tokens x layers x experts that are drawn at most: half a second
_SEQUENCE_TOKENS = 512
_LEAST_TOKENS, _MOST_TOKENS = 256, 2**15
UNIFORM = "uniform"
PREDICTING = ("speculative", "predicted-path")  # the plan's policies to which something is told


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteBank:
    """Rows of tokens. experts: int16[rows, layers, top_k]; guess: int16[rows, layers, any], what is predicted of each
    row, -1 for none (any may be 0). uses: int64[layers, experts] of all rows, for placing experts.

    row: int64[places], starts: int64[sequences + 1]: the token at place p of sequence s is row[starts[s] + p] (-1: it
    was not recorded). recorded: sequences are the workload's requests; else a request takes a sequence, and a place to
    start in it, by its number, and begins it again at its end.
    """

    experts: NDArray[np.int16]
    guess: NDArray[np.int16]
    uses: NDArray[np.int64]
    row: NDArray[np.int64]
    starts: NDArray[np.int64]
    recorded: bool
    num_experts: int


def route_bank(routing: str, shape: MoeShape, offload: ExpertOffload, seed: int = 0) -> RouteBank:
    """The routes that `routing` states: a source as `parse_source` reads it ("": uniform), or a recorded trace's file.

    Raises InputError for what is neither, and for a trace of another model.
    """
    rng = np.random.default_rng(seed)
    recorded = is_trace_file(routing)
    trace = _recorded(Path(routing), shape) if recorded else _sampled(routing or UNIFORM, shape, rng)
    row, starts = _places(trace)
    return RouteBank(
        experts=trace.experts,
        guess=np.ascontiguousarray(_guess(trace, offload, rng)),  # one layout: the kernel is compiled once
        uses=loads(trace.experts, np.zeros(trace.tokens, np.int64), 1, trace.num_experts)[0],
        row=row,
        starts=starts,
        recorded=recorded,
        num_experts=trace.num_experts,
    )


def told_of(offload: ExpertOffload) -> ExpertOffload:
    """What a bank has of an offload: what is predicted. Offloads for which it is equal may share one."""
    if offload.policy not in PREDICTING:
        return ExpertOffload()
    return ExpertOffload(policy=offload.policy, window=offload.window, recall=offload.recall)


def _sampled(text: str, shape: MoeShape, rng: np.random.Generator) -> RoutingTrace:
    source, layers = parse_source(text, shape, rng)
    tokens = _CLOCKS // (len(shape.layers) * shape.num_experts)
    tokens = min(max(tokens, _LEAST_TOKENS), _MOST_TOKENS)
    length = min(_SEQUENCE_TOKENS, tokens)
    return sample_trace(source, sequences=tokens // length, output_tokens=length, rng=rng, layers=layers)


def _recorded(path: Path, shape: MoeShape) -> RoutingTrace:
    trace = read_routing(path)
    found, wanted = (len(trace.layers), trace.num_experts), (len(shape.layers), shape.num_experts)
    if found != wanted:
        rule = f"has {found[0]} layers of {found[1]} experts, and the model {wanted[0]} of {wanted[1]}"
        raise InputError(str(path), rule, "a trace of this model (simtool execute --record-routing)")
    return trace


def _places(trace: RoutingTrace) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row, starts) of the first row of each token."""
    sequences = int(trace.sequence.max(initial=-1)) + 1
    lengths = np.zeros(sequences, np.int64)
    np.maximum.at(lengths, trace.sequence, trace.position + 1)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    row = np.full(starts[-1], -1, np.int64)
    place = starts[trace.sequence] + trace.position
    row[place[::-1]] = np.arange(trace.tokens)[::-1]
    return row, starts


def _guess(trace: RoutingTrace, offload: ExpertOffload, rng: np.random.Generator) -> NDArray[np.int16]:
    """Predictions, by the next layer's gate on this layer's state, or of whole paths before the pass."""
    predictor: Predictor
    match offload.policy:
        case "speculative":
            predictor = GatePredictor(hit_rates=(offload.recall,) * offload.window)
        case "predicted-path" if offload.recall == 1.0:
            predictor = PerfectPredictor()
        case "predicted-path":
            predictor = LearnedPredictor(recall=(offload.recall,), precision=(max(offload.recall, 1e-3),))
        case _:
            return np.zeros((trace.tokens, len(trace.layers), 0), np.int16)
    return predictor.predict(trace, offload.window, rng).experts
