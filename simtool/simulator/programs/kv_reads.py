"""KvReads: tokens of a KV tree that attention reads in each iteration, once a tree or once a sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.simulator.programs.kv_tree import KvTree

Ints = NDArray[np.int64]
_MOST_ITERATIONS = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class KvReads:
    """Columns int64[iterations]; entry i is iteration i + 1, after its token was written.

    live: sequences that decode. unique_tokens: segments on any live path, each once (a tree-aware kernel).
    path_tokens: the sum of all live paths (a kernel a sequence). longest_tokens: the longest segment that is read.
    """

    live: Ints
    unique_tokens: Ints
    path_tokens: Ints
    longest_tokens: Ints


def kv_reads(tree: KvTree, iterations: int) -> KvReads:
    """What iterations 1 to `iterations` read. Raises InputError for more than 2**24 iterations or fewer than 0."""
    if not 0 <= iterations <= _MOST_ITERATIONS:
        raise InputError(iterations, f"iterations are from 0 to {_MOST_ITERATIONS}")
    at = np.arange(1, iterations + 1)
    first, last = _clip(tree.start, tree.end, iterations)
    live = _stairs(np.ones(len(first), np.int64), first, last, iterations)
    growing = _stairs(tree.tokens - tree.end, first, last, iterations) + at * live
    above = _stairs(tree.above_tokens(), first, last, iterations)
    row, begin, until = shared_intervals(tree)
    begin, until = _clip(begin, until, iterations)
    shared = tree.tokens[row]
    return KvReads(
        live=live,
        unique_tokens=growing + _stairs(shared, begin, until, iterations),
        path_tokens=growing + above,
        longest_tokens=_longest(tree, (first, last), (shared, begin, until), at),
    )


def shared_intervals(tree: KvTree) -> tuple[Ints, Ints, Ints]:
    """Segment, first and last iteration of each stretch in which something below the segment is live.

    Stretches of a segment are disjoint; level by level, a parent's are the union of its children's and their own.
    """
    depth = tree.depth()
    row, begin, until = (np.zeros(0, np.int64) for _ in range(3))
    found = []
    for level in range(int(depth.max(initial=0)), 0, -1):
        own = np.flatnonzero(depth == level)
        row = tree.parent[np.concatenate((row, own))]
        begin = np.concatenate((begin, tree.start[own]))
        until = np.concatenate((until, tree.end[own]))
        row, begin, until = _union(row, begin, until)
        found.append((row, begin, until))
    if not found:
        return row, begin, until
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    return columns[0], columns[1], columns[2]


def _union(row: Ints, begin: Ints, until: Ints) -> tuple[Ints, Ints, Ints]:
    """Disjoint stretches of each row: those that touch or overlap become one."""
    low = int(begin.min())
    span = int(until.max()) - low + 3  # rows laid end to end, with a gap between them
    order = np.lexsort((begin, row))
    row, begin, until = row[order], begin[order], until[order]
    reach = np.maximum.accumulate(row * span + until - low)
    opens = np.ones(len(row), bool)
    opens[1:] = row[1:] * span + begin[1:] - low > reach[:-1] + 1
    last = np.append(np.flatnonzero(opens)[1:], len(row)) - 1
    return row[opens], begin[opens], reach[last] - row[last] * span + low


def _clip(first: Ints, last: Ints, iterations: int) -> tuple[Ints, Ints]:
    """Zero-based [first, last) within the iterations asked for."""
    begin = np.clip(first - 1, 0, iterations)
    return begin, np.maximum(np.clip(last, 0, iterations), begin)


def _stairs(height: Ints, begin: Ints, until: Ints, iterations: int) -> Ints:
    """Sum of steps of a height over [begin, until), by differences."""
    change = np.zeros(iterations + 1, np.int64)
    np.add.at(change, begin, height)
    np.subtract.at(change, until, height)
    return np.asarray(np.cumsum(change)[:-1])


def _longest(tree: KvTree, live: tuple[Ints, Ints], shared: tuple[Ints, Ints, Ints], at: Ints) -> Ints:
    found = np.zeros(len(at), np.int64)
    for ahead, begin, until in zip(tree.tokens - tree.end, *live, strict=True):
        stretch = found[begin:until]
        np.maximum(stretch, ahead + at[begin:until], out=stretch)
    for tokens, begin, until in zip(*shared, strict=True):
        stretch = found[begin:until]
        np.maximum(stretch, tokens, out=stretch)
    return found
