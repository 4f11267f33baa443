"""StepFloor: the least time a step of a replica can take, over buckets of what it can contain.

A bucket's floor holds for every step in it: tables are replaced by their monotone envelope from below (the least over
all larger loads), so CUDA-graph padding and bumps of measured tables cannot make a bound optimistic the wrong way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simtool.simulator.engine import EngineSpec
from simtool.simulator.tables import StepTables

Array = NDArray[np.float64]
_EXACT_UP_TO = 24  # loads below are buckets of their own
_GROWTH = 1.06  # width of a bucket above
_HULL_GROWTH = 1.02


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFloor:
    """Floors of one replica. I decode buckets, J prefill buckets, C critical stages, K context knots.

    d_low, d_high [I]: decoding requests of all ranks; p_low [J], p_high [I, J]: prefill tokens (0: none fit beside).
    context [I, K]: mean KV length at which floors are stated (linear in between).
    stage_s [C, I, J] and attention_s [C, I, K]: occupancy of a critical stage. latency_s [I, J],
    latency_attention_s [I, K]: from a step's start to its tokens. pair_s [C], latency_pair_s: seconds a (query, key)
    pair. in_flight: requests that a replica can hold in steps at once. idle_w, token_j: least watts, joules a token.
    """

    d_low: Array
    d_high: Array
    p_low: Array
    p_high: Array
    context: Array
    stage_s: Array
    attention_s: Array
    latency_s: Array
    latency_attention_s: Array
    pair_s: Array
    latency_pair_s: float
    in_flight: float
    token_j: float
    idle_w: float


def step_floor(spec: EngineSpec, *, concurrency: float, longest_context: int, share_blocks: bool) -> StepFloor:
    """The floors of an engine. share_blocks: requests may share KV blocks (prefix caching), capacity bounds nothing."""
    spec = replace(spec, tables=spec.tables.without_overlap())
    tables = spec.tables
    tokens = tables.token_s.shape[1] - 1
    seats = min(float(spec.scheduler.max_num_seqs), float(tables.decode_s.shape[1] - 1)) * spec.dp
    most = int(max(1.0, min(seats, concurrency, tokens * spec.dp)))
    d_low, d_high = _buckets(0, most)
    p_low, p_top = _buckets(0, tokens * spec.dp)
    room = tokens * spec.dp - d_low[:, None]
    p_high = np.where(p_low[None, :] <= room, np.minimum(p_top[None, :], room), 0.0)
    capacity = np.inf if share_blocks else float(spec.num_blocks) * spec.block_size * spec.dp
    context = _contexts(tables.kv_knots, d_low, longest_context, capacity)
    alike = _alike(tables)
    first = sorted(set(alike))
    stages = _stage_floors(spec, d_low, p_low, first)[[first.index(stage) for stage in alike]]
    attention = np.stack([_attention(spec, stage, d_low, context) for stage in first])[[first.index(s) for s in alike]]
    _add_ends(spec, stages, d_low)
    rates = tables.prefill_rate.reshape(len(tables.token_s), -1).min(axis=1) / spec.dp
    critical = _critical(stages, attention)
    return StepFloor(
        d_low=d_low,
        d_high=d_high,
        p_low=p_low,
        p_high=p_high,
        context=context,
        stage_s=stages[critical],
        attention_s=attention[critical],
        latency_s=stages.sum(axis=0),
        latency_attention_s=attention.sum(axis=0),
        pair_s=rates[critical],
        latency_pair_s=float(rates.sum()),
        in_flight=seats,
        token_j=_token_joules(tables),
        idle_w=tables.idle_w,
    )


def rising(values: Array) -> Array:
    """The largest non-decreasing function below `values` along the last axis."""
    return np.asarray(np.minimum.accumulate(values[..., ::-1], axis=-1)[..., ::-1])


def convex(values: Array) -> Array:
    """A convex, non-decreasing function below `values` (1-d, unit spacing, non-decreasing), at the same points.

    The lower hull of a thinned set: a block of points is stood for by its last place and its first (least) value.
    """
    first, last = _buckets(0, len(values) - 1, _HULL_GROWTH)
    places, heights = last.astype(np.int64), values[first.astype(np.int64)]
    hull: list[int] = []
    for point in range(len(places)):
        while len(hull) > 1 and _above(places, heights, hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return np.asarray(np.interp(np.arange(len(values)), places[hull], heights[hull]))


def _above(x: NDArray[np.int64], y: Array, a: int, b: int, c: int) -> bool:
    """Whether point b lies on or above the line from a to c."""
    return bool((y[b] - y[a]) * (x[c] - x[a]) >= (y[c] - y[a]) * (x[b] - x[a]))


def _buckets(first: int, last: int, growth: float = _GROWTH) -> tuple[Array, Array]:
    """Inclusive integer ranges that cover first … last: single numbers, then wider by `growth`."""
    lows = list(range(first, min(last, _EXACT_UP_TO) + 1))
    edge = float(lows[-1])
    while lows[-1] < last:
        edge = max(edge * growth, lows[-1] + 1)
        lows.append(min(int(edge), last))
    low = np.array(lows, np.float64)
    return low, np.append(low[1:] - 1, last)


def _contexts(knots: Array, d_low: Array, longest: int, capacity: float) -> Array:
    """[I, K+1]: the table's knots and the longest context, cut to what KV capacity lets d_low requests hold."""
    points = np.unique(np.append(knots[knots < longest], float(longest)))
    limit = capacity / np.maximum(d_low, 1.0)
    return np.asarray(np.minimum(points[None, :], np.maximum(limit[:, None], 0.0)))


def _alike(tables: StepTables) -> list[int]:
    """The first stage with the same tables, for each stage: inner stages of a pipeline are mostly equal."""
    keys = [
        (tables.token_s[stage].tobytes(), tables.shared_s[stage].tobytes(), tables.decode_s[stage].tobytes())
        for stage in range(len(tables.token_s))
    ]
    return [keys.index(key) for key in keys]


def _stage_floors(spec: EngineSpec, d_low: Array, p_low: Array, stages: list[int]) -> Array:
    """[len(stages), I, J] seconds of each stage without attention, head and host."""
    tables, dp = spec.tables, spec.dp
    total = (d_low[:, None] + p_low[None, :]).astype(np.int64)
    total = np.minimum(total, (tables.token_s.shape[1] - 1) * dp)
    per_stage = []
    for stage in stages:
        dense, shared = rising(tables.token_s[stage]), rising(tables.shared_s[stage])
        if dp > 1:
            # Ranks step together and the slowest sets the pace: at least the mean over the ranks that have work, which
            # is at least the convex floor at the mean load of all ranks (Jensen); a rank without work costs nothing.
            counts = np.arange(1, len(dense))
            floor = np.interp(total / dp, counts, convex(dense[1:]))
        else:
            floor = dense[total]
        per_stage.append(floor + shared[np.minimum(total, len(shared) - 1)])
    return np.stack(per_stage)


def _add_ends(spec: EngineSpec, stages: Array, d_low: Array) -> None:
    """Add what only the last stage does (head) and only the first (host, where it is not hidden)."""
    head = rising(spec.tables.head_s)
    stages[-1] += head[np.minimum(d_low.astype(np.int64), len(head) - 1)][:, None]
    if not spec.tables.host_overlapped:
        stages[0] += _host(spec.tables, d_low, spec.dp)[:, None]


def _host(tables: StepTables, d_low: Array, dp: int) -> Array:
    """[I] host seconds of the rank with the most requests."""
    host = rising(tables.host_s)
    return host[np.minimum(np.ceil(d_low / dp).astype(np.int64), len(host) - 1)]


def _attention(spec: EngineSpec, stage: int, d_low: Array, context: Array) -> Array:
    """[I, K] seconds of decode attention."""
    tables = spec.tables
    knots, table = tables.kv_knots, tables.decode_s[stage]
    if spec.dp == 1:
        floor = rising(table.T).T
        rows = floor[np.minimum(d_low.astype(np.int64), len(floor) - 1)]
        return np.stack([np.interp(context[i], knots, rows[i]) for i in range(len(d_low))])
    decodes = np.arange(1, len(table), dtype=np.float64)[:, None]
    busy = table[1:]
    per_request = float(max(0.0, (busy[:, :1] / decodes).min()))
    slope = 0.0
    if len(knots) > 1:
        slope = float(max(0.0, ((busy[:, 1:] - busy[:, :1]) / (decodes * knots[None, 1:])).min()))
    return d_low[:, None] * (per_request + slope * context) / spec.dp


def _critical(stages: Array, attention: Array) -> list[int]:
    """Stages that are the slowest somewhere; the others bound nothing."""
    whole = np.concatenate([stages.reshape(len(stages), -1), attention.reshape(len(stages), -1)], axis=1)
    return sorted({int(stage) for stage in np.unique(whole.argmax(axis=0))})


def _token_joules(tables: StepTables) -> float:
    counts = np.arange(1, len(tables.token_j))
    return float(max(0.0, (tables.token_j[1:] / counts).min())) if len(counts) else 0.0
