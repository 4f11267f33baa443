"""Which share of a stage's steps an Overlap saves, on a grid that the step tables are made of.

What an overlap saves depends on the tokens of the step and on how much of it is attention, of decodes and of prompts.
So few steps are simulated as task graphs, and a replica interpolates between them: a run with overlap is as fast as one
without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from simtool.models.layer_chain import layer_kinds
from simtool.models.lowering_shard import Shard
from simtool.plan import Overlap
from simtool.simulator.overlap.grid_prices import Chunks, GridPrices
from simtool.simulator.overlap.layer_time import LayerTime, layer_time
from simtool.simulator.step_costs import (
    DECODE_SHARES,
    LOWER,
    NOMINAL,
    PREFILL_SHARES,
    UPPER,
    OverlapGain,
    StageHardware,
    StepCosts,
)

Array = NDArray[np.float64]

# What is simulated: KV lengths of the decodes, and chunks of prompts. The first are so short that next to nothing of
# the step is attention: its kernel is there, and takes its place among the streams.
_KV_LENGTHS = (16, 1024, 4096, 16384)
_CHUNKS = (Chunks(longest=32, context=0), Chunks(longest=10**6, context=0), Chunks(longest=10**6, context=16384))


def stage_gains(
    shards: Sequence[Shard], stages: Sequence[StageHardware], overlap: Overlap, costs: StepCosts
) -> tuple[OverlapGain, ...]:
    """The gain of each stage; costs: of the same stages without overlap. Stages that are alike are made once."""
    known: dict[tuple[object, ...], OverlapGain] = {}
    gains = []
    for stage, (shard, hardware) in enumerate(zip(shards, stages, strict=True)):
        alike = (id(costs.stages[stage]), layer_kinds(shard))
        if alike not in known:
            known[alike] = _stage_gain(shard, hardware, overlap, costs, stage)
        gains.append(known[alike])
    return tuple(gains)


def _stage_gain(shard: Shard, hardware: StageHardware, overlap: Overlap, costs: StepCosts, stage: int) -> OverlapGain:
    least = [overlap.least_tokens(prompts=kind) for kind in (False, True)]
    few = overlap.fallback
    tokens = _token_grid(min(least) if few.off else 1, costs.max_tokens)
    kinds = [
        GridPrices(
            shard=shard,
            hardware=hardware,
            kind=kind,
            tokens=tokens,
            max_seqs=costs.max_seqs,
            kv_nodes=overlap.kv_nodes,
        )
        for kind in layer_kinds(shard)
    ]
    base_s = _base_s(costs, stage, tokens)

    def saved(used: Overlap) -> Array:
        rows = [_saved_at(at, kinds, used, float(base_s[at]), costs.max_context) for at in range(len(tokens))]
        return np.stack(rows, axis=1)

    small = None if few.off or max(least) == 1 else saved(few)
    return OverlapGain(tokens=tokens, saved=saved(overlap), small=small)


def _token_grid(first: int, last: int) -> Array:
    """Powers of two between, and both ends."""
    between = [2**octave for octave in range(64) if first < 2**octave < last]
    return np.array(sorted({min(first, last), *between, last}), np.float64)


def _base_s(costs: StepCosts, stage: int, tokens: Array) -> Array:
    """[T] nominal seconds of the stage beside attention."""
    priced, grids = costs.stages[stage], costs.grids
    dense_s = np.interp(tokens, grids.tokens, priced.token[NOMINAL])
    return np.asarray(dense_s + np.interp(tokens * costs.parallel.dp, grids.all_tokens, priced.experts[NOMINAL]))


def _saved_at(at: int, kinds: Sequence[GridPrices], overlap: Overlap, base_s: float, longest: int) -> Array:
    """[3, U, V] saved shares of steps of tokens[at]. The first knot of an axis is a step without that attention."""
    lengths = [0, *(length for length in _KV_LENGTHS if length <= max(longest, _KV_LENGTHS[0]))]
    prompts = [None, *(chunks for chunks in _CHUNKS if chunks.context <= longest)]
    prefill_s = np.array([_attention_s(kinds, at, 0, chunks) for chunks in prompts])
    attention_s = np.array([[_attention_s(kinds, at, length, chunks) for chunks in prompts] for length in lengths])
    decode_s = attention_s - prefill_s  # dearer beside prompts with some libraries
    shares = np.zeros((3, len(lengths), len(prompts)))
    for (i, length), (j, chunks) in product(enumerate(lengths), enumerate(prompts)):
        times = [layer_time(kind.at(at, length, chunks), overlap, kind.hardware, kind.kind) for kind in kinds]
        shares[:, i, j] = _saved_s(times) / (base_s + attention_s[i, j])
    rows = _on_knots(shares, decode_s / base_s, DECODE_SHARES)
    prefills = np.broadcast_to(prefill_s[:, None] / base_s, rows.shape[:0:-1])
    return np.swapaxes(_on_knots(np.swapaxes(rows, 1, 2), prefills, PREFILL_SHARES), 1, 2)


def _attention_s(kinds: Sequence[GridPrices], at: int, length: int, chunks: Chunks | None) -> float:
    return math.fsum(
        kind.kind.count * math.fsum(kernel.seconds for kernel in kind.attention(at, 1.0, length, chunks))
        for kind in kinds
    )


def _saved_s(times: Sequence[LayerTime]) -> Array:
    """[3] seconds saved of all layers: nominal, and at the lower and upper ends of the step's time."""
    saved = np.zeros(3)
    for time in times:
        layers, nominal_s = time.kind.count, time.period_s + time.fill_s / time.kind.count
        ends = {NOMINAL: nominal_s, LOWER: min(time.lower_s, nominal_s), UPPER: max(time.pieces_s, nominal_s)}
        for end, seconds in ends.items():
            saved[end] += layers * (time.serial_s - seconds)
    return saved


def _on_knots(shares: Array, ratios: Array, knots: Array) -> Array:
    """The second axis [3, P, Q] → [3, 1 + len(knots), Q]: steps without the attention (the first), then by its share.

    ratios [P, Q]: attention over the rest of the step. Nothing is saved where attention is all of a step.
    """
    at = np.maximum.accumulate(ratios[1:] / (1.0 + ratios[1:]), axis=0)
    at = np.concatenate([at, np.ones_like(at[:1])])
    padded = np.concatenate([shares[:, 1:], np.zeros_like(shares[:, :1])], axis=1)
    columns = [[np.interp(knots, x, y) for x, y in zip(at.T, end.T, strict=True)] for end in padded]
    spread = np.stack(columns).swapaxes(1, 2)
    return np.concatenate([shares[:, :1], spread], axis=1)
