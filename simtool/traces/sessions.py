"""What requests share: prefixes drawn from a popularity law, and the growing context of multi-turn sessions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.traces.arrivals import arrivals
from simtool.traces.numbers import MAX_TOKENS
from simtool.traces.prefixes import ragged_positions
from simtool.traces.rows import session_root, take
from simtool.workload import Workload, make_workload


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefixes:
    """`count` system prompts of `tokens` tokens each, put in front of the prompts (as vLLM's --random-prefix-len).

    Prefix j (from 0) is chosen with probability proportional to 1 / (j + 1)^zipf; zipf 0: all alike.
    """

    count: int
    tokens: int
    zipf: float = 1.0
    block_tokens: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Conversations of `turns` requests each (the last may be cut short by the number of requests).

    The drawn input lengths are what the user adds at each turn; a prompt is everything said before plus that.
    A turn is sent after the answer to the one before and a think time, exponential with mean think_s.
    """

    turns: int
    think_s: float = 0.0
    block_tokens: int = 16


def with_sessions(
    added_tokens: NDArray[np.int32],
    output_tokens: NDArray[np.int32],
    sessions: Sessions,
    request_rate: float,
    burstiness: float,
    rng: np.random.Generator,
) -> Workload:
    """Sessions over these lengths (in session order); they start at request_rate / turns, so requests keep the rate.

    The prompt's blocks that the turn before had in its prompt carry the same prefix ids. Answers of earlier turns
    carry none (an engine may find them in its cache too, so reuse is a lower bound).
    """
    if sessions.turns < 1 or sessions.block_tokens < 1 or not 0 <= sessions.think_s < np.inf:
        raise InputError(sessions, "needs turns and block_tokens of at least 1 and a finite think_s of at least 0")
    count, turns = len(added_tokens), sessions.turns
    turn = np.arange(count) % turns
    starts = arrivals(-(-count // turns), request_rate / turns, burstiness, rng)
    think_s = np.where(turn > 0, rng.standard_exponential(count) * sessions.think_s, 0.0)
    first = np.arange(count) - turn
    waited = np.cumsum(think_s)
    spoken = np.cumsum(added_tokens.astype(np.int64) + output_tokens)
    before = spoken - added_tokens - output_tokens
    input_tokens = added_tokens + before - before[first]
    if input_tokens.max() > MAX_TOKENS:
        raise InputError(sessions, "a prompt grows beyond 2^31 tokens", "fewer turns or shorter lengths")
    ids, offsets = _session_prefixes(input_tokens, turn, sessions.block_tokens)
    workload = replace(
        make_workload(
            starts[np.arange(count) // turns] + waited - waited[first], input_tokens.astype(np.int32), output_tokens
        ),
        prefix_ids=ids,
        prefix_offsets=offsets,
        prefix_block_tokens=sessions.block_tokens,
        follows=np.where(turn > 0, np.arange(count) - 1, -1).astype(np.int32),
        think_s=think_s,
    )
    return take(workload, np.argsort(workload.arrival_s, kind="stable"))


def _session_prefixes(
    input_tokens: NDArray[np.int64], turn: NDArray[np.int64], block: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(ids, offsets): a session's blocks are numbered through; a turn has those of its prompt that a later one reuses.

    The last turn of a session has only the blocks of the turn before: nobody reuses its own.
    """
    count = len(input_tokens)
    full = input_tokens // block
    last = np.append(turn[1:] == 0, True)
    previous = np.where(turn > 0, np.append(0, full[:-1]), 0)
    kept = np.where(last, previous, full)
    first = np.arange(count) - turn
    longest = np.where(last, previous, 0)  # ids of a session: as many as its last but one prompt has blocks
    base = np.cumsum(longest) - longest
    ends = np.flatnonzero(last)
    session = np.searchsorted(ends, first, side="left")
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    if offsets[-1] == 0:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    ids = np.repeat(base[ends][session], kept) + ragged_positions(kept)
    return ids.astype(np.int32), offsets


def with_shared_prefixes(workload: Workload, prefixes: SharedPrefixes, rng: np.random.Generator) -> Workload:
    """Put one of the shared prefixes in front of every prompt; all turns of a session have the same one."""
    if prefixes.count < 1 or prefixes.tokens < 1 or prefixes.block_tokens < 1 or not 0 <= prefixes.zipf < np.inf:
        raise InputError(prefixes, "needs count, tokens and block_tokens of at least 1 and a zipf of at least 0")
    if len(workload.prefix_offsets) and workload.prefix_block_tokens != prefixes.block_tokens:
        raise InputError(prefixes.block_tokens, f"sessions use blocks of {workload.prefix_block_tokens} tokens")
    if int(workload.input_tokens.max()) + prefixes.tokens > MAX_TOKENS:
        raise InputError(prefixes, "prompts grow beyond 2^31 tokens")
    weights = np.cumsum(1.0 / np.arange(1, prefixes.count + 1) ** prefixes.zipf)
    drawn = np.searchsorted(weights / weights[-1], rng.random(workload.num_requests), side="right")
    chosen = np.minimum(drawn, prefixes.count - 1)[session_root(workload)]
    ids, offsets = _prefixed(workload, chosen, prefixes)
    return replace(
        workload,
        input_tokens=workload.input_tokens + np.int32(prefixes.tokens),
        prefix_ids=ids,
        prefix_offsets=offsets,
        prefix_block_tokens=prefixes.block_tokens,
    )


def _prefixed(
    workload: Workload, chosen: NDArray[np.int64], prefixes: SharedPrefixes
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(ids, offsets): the prefix's whole blocks, then the request's own (which start after the prefix's last one)."""
    blocks = prefixes.tokens // prefixes.block_tokens
    own = np.diff(workload.prefix_offsets) if len(workload.prefix_offsets) else np.zeros(len(chosen), np.int64)
    counts = own + blocks
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    if offsets[-1] == 0:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    position = ragged_positions(counts)
    ids = np.repeat(chosen * blocks, counts) + position
    ids[position >= blocks] = workload.prefix_ids.astype(np.int64) + prefixes.count * blocks
    used = np.unique(ids[position < blocks]) if blocks else ids[:0]
    rank = np.zeros(prefixes.count * blocks + 1, np.int64)
    rank[used] = 1
    shift = np.cumsum(rank) - 1
    is_prefix = ids < prefixes.count * blocks
    dense_ids = np.where(is_prefix, shift[np.where(is_prefix, ids, 0)], ids - prefixes.count * blocks + len(used))
    return dense_ids.astype(np.int32), offsets
