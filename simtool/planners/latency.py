"""Latency floors: the least TTFT, TPOT and E2E that an engine can give each request, were it alone in the cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simtool.planners.demand import Demand
from simtool.planners.floor import convex, rising
from simtool.simulator.engine import EngineSpec
from simtool.simulator.tables import StepTables

Array = NDArray[np.float64]
_CHUNKS = 16  # cuts of a prompt that are tried exactly; finer cuts are bounded by the best rate


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFloor:
    """A row a counted request, seconds. TPOT is 0 for requests of one token, as the benchmark leaves them out."""

    ttft_s: Array
    tpot_s: Array
    e2e_s: Array

    def share_within(self, ttft_s: float, tpot_s: float, e2e_s: float) -> float:
        """Largest share of requests that could meet all limits (0: no limit)."""
        met = np.ones(len(self.ttft_s), bool)
        for floor, limit in ((self.ttft_s, ttft_s), (self.tpot_s, tpot_s), (self.e2e_s, e2e_s)):
            if limit > 0:
                met &= floor <= limit
        return float(met.mean())


def latency_floor(spec: EngineSpec, demand: Demand) -> LatencyFloor:
    """The floors of every counted request on one replica."""
    spec = replace(spec, tables=spec.tables.without_overlap())
    prompts, which = np.unique(demand.uncached, return_inverse=True)
    ttft_s = _prefill_floor(spec, prompts)[which]
    decodes = demand.output - 1.0
    tpot_s = np.where(decodes > 0, _decode_floor(spec, demand.input), 0.0)
    return LatencyFloor(ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=ttft_s + decodes * tpot_s)


def _stage_by_tokens(tables: StepTables) -> Array:
    """[S, T+1] seconds of a stage for T tokens, attention, head and host left out; never falling in T."""
    width = tables.token_s.shape[1]
    shared = np.minimum(np.arange(width), tables.shared_s.shape[1] - 1)
    return np.asarray(rising(tables.token_s) + rising(tables.shared_s)[:, shared])


def _prefill_floor(spec: EngineSpec, prompts: Array) -> Array:
    """Least seconds to the first token, however a prompt is cut into chunks of at most the table's tokens."""
    tables = spec.tables
    stages = _stage_by_tokens(tables)
    # one stage does all chunks one after the other; the others see at least one token after it or before it
    bottleneck = int(stages[:, -1].argmax())
    others = float(stages[:, 1].sum() - stages[bottleneck, 1])
    hull = convex(stages[bottleneck])
    longest = len(hull) - 1
    fewest = np.ceil(prompts / longest)
    # convex cost: m equal chunks are the cheapest m chunks
    counts = fewest[:, None] + np.arange(_CHUNKS)
    cuts = counts * np.interp(prompts[:, None] / counts, np.arange(longest + 1), hull)
    rate = float((hull[1:] / np.arange(1, longest + 1)).min())
    finer = np.maximum(prompts * rate, (counts[:, -1] + 1) * hull[0])
    pairs = prompts * (prompts + 1.0) / 2.0
    pair_s = float(tables.prefill_rate[bottleneck].min())
    return np.asarray(np.minimum(cuts.min(axis=1), finer) + others + pairs * pair_s + _tail_s(tables))


def _decode_floor(spec: EngineSpec, contexts: Array) -> Array:
    """Least seconds between two tokens of a request at context `contexts` or more, whatever shares its steps."""
    tables = spec.tables
    stages = _stage_by_tokens(tables)
    fixed = float(stages[:, 1].sum()) + _tail_s(tables)
    table = rising(tables.decode_s.sum(axis=0))  # [D+1, K]: a token passes all stages
    decodes = np.arange(1, len(table))
    levels = np.linspace(contexts.min(), contexts.max(), 17)
    # D requests share a step whose KV sums to at least this request's context: a mean of at least context / D
    means = levels[:, None] / decodes
    right = np.clip(np.searchsorted(tables.kv_knots, means), 1, len(tables.kv_knots) - 1)
    left_x, right_x = tables.kv_knots[right - 1], tables.kv_knots[right]
    share = np.clip((means - left_x) / (right_x - left_x), 0.0, 1.0)
    at_level = ((1.0 - share) * table[decodes, right - 1] + share * table[decodes, right]).min(axis=1)
    below = np.clip(np.searchsorted(levels, contexts, side="right") - 1, 0, len(levels) - 1)
    return fixed + rising(at_level)[below]


def _tail_s(tables: StepTables) -> float:
    """Head and, where it is not hidden, host of a step that yields a token."""
    head = float(tables.head_s[1:].min()) if len(tables.head_s) > 1 else 0.0
    if tables.host_overlapped or len(tables.host_s) < 2:
        return head
    return head + float(tables.host_s[1:].min())
