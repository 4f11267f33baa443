"""Prefix ids: the hash ids of a trace made dense, with equal id meaning equal content and equal history."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 18  # ids handled at once: bounds the temporary memory

Ids = NDArray[np.int32] | NDArray[np.int64]


class PrefixColumn:
    """Ragged column of hash ids. Small ids (the usual case) are kept in 4 bytes, a large one widens the column."""

    def __init__(self) -> None:
        self._ids: Ids = np.empty(0, np.int32)
        self._length = 0
        self._counts: list[NDArray[np.int64]] = []

    def extend(self, before: int, rows: int, prefix: tuple[NDArray[np.int64], NDArray[np.int64]] | None) -> None:
        """Append `rows` rows after `before` earlier ones; prefix = (flat ids >= 0, ids per row), None: no ids."""
        if prefix is None:
            if self._counts:
                self._counts.append(np.zeros(rows, np.int64))
            return
        if not self._counts and before:
            self._counts.append(np.zeros(before, np.int64))
        ids, counts = prefix
        self._counts.append(counts)
        if self._ids.dtype == np.int32 and ids.size and int(ids.max()) > np.iinfo(np.int32).max:
            self._ids = self._ids.astype(np.int64)
        end = self._length + len(ids)
        if end > len(self._ids):
            self._ids.resize(max(end, 1024, len(self._ids) * 5 // 4), refcheck=False)
        self._ids[self._length : end] = ids
        self._length = end

    def finish(self, limit: NDArray[np.int32] | None) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """(dense ids, offsets); both empty when there are no ids. limit: at most so many ids of each row."""
        counts = np.concatenate(self._counts) if self._counts else np.empty(0, np.int64)
        self._counts = []
        self._ids.resize(self._length, refcheck=False)
        ids = self._ids
        if limit is not None and len(counts):
            ids, counts = first_ids(ids, counts, limit)
        if not len(ids):
            return np.empty(0, np.int32), np.empty(0, np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return chained(dense(ids), offsets), offsets


def first_ids(ids: Ids, counts: NDArray[np.int64], limit: NDArray[np.int32]) -> tuple[Ids, NDArray[np.int64]]:
    """Keep at most limit[i] ids of row i. ids is overwritten and cut in place."""
    kept = np.minimum(counts, limit)
    if np.array_equal(kept, counts):
        return ids, counts
    ends = np.cumsum(counts)
    write = 0
    rows_per_chunk = max(1, int(_CHUNK / max(1.0, float(counts.mean()))))
    for row in range(0, len(counts), rows_per_chunk):
        part = slice(row, row + rows_per_chunk)
        start = int(ends[row] - counts[row])
        position = ragged_positions(kept[part])
        source = np.repeat(ends[part] - counts[part], kept[part]) + position
        values = ids[start : int(ends[part][-1])][source - start]
        ids[write : write + len(values)] = values
        write += len(values)
    ids.resize(write, refcheck=False)
    return ids, kept


def ragged_positions(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, .. counts[0]-1, 0, 1, .. counts[1]-1, ..: the position of each element in its row."""
    starts = np.cumsum(counts) - counts
    return np.arange(int(counts.sum()), dtype=np.int64) - np.repeat(starts, counts)


def dense(ids: Ids) -> NDArray[np.int32]:
    """Ids renumbered 0..max without holes, order kept; overwritten in place where they are small already."""
    highest = int(ids.max())
    if ids.dtype == np.int32 and highest <= 8 * len(ids) + _CHUNK:
        rank = np.zeros(highest + 1, np.int32)
        rank[ids] = 1
        np.cumsum(rank, out=rank)
        rank -= 1
        for start in range(0, len(ids), _CHUNK):
            ids[start : start + _CHUNK] = rank[ids[start : start + _CHUNK]]
        return ids.astype(np.int32, copy=False)
    return np.unique(ids, return_inverse=True)[1].astype(np.int32)


def chained(ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> NDArray[np.int32]:
    """Ids for which equal id implies equal history: the same array when that holds, else renumbered by history.

    Mooncake's ids hash the whole prefix and hold already. Ids that name a block's own content only (say, the same
    document at two places) are told apart by what precedes them, as an engine's prefix cache does.
    """
    parent = np.full(int(ids.max()) + 1, -2, np.int32)
    first = np.zeros(len(ids), np.bool_)
    first[offsets[:-1][offsets[:-1] < offsets[1:]]] = True
    spans = range(0, len(ids), _CHUNK)
    for start in spans:
        parent[ids[start : start + _CHUNK]] = _before(ids, first, start)
    if all(np.array_equal(parent[ids[start : start + _CHUNK]], _before(ids, first, start)) for start in spans):
        return ids
    return _renumbered(ids, offsets)


def _before(ids: NDArray[np.int32], first: NDArray[np.bool_], start: int) -> NDArray[np.int32]:
    """The id before each id of one chunk in its row, -1 at the start of a row."""
    end = min(start + _CHUNK, len(ids))
    previous = np.empty(end - start, np.int32)
    previous[1:] = ids[start : end - 1]
    previous[0] = ids[start - 1] if start else -1
    previous[first[start:end]] = -1
    return previous


def _renumbered(ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number the nodes of the prefix tree, level by level: a node is (node before, id)."""
    counts = np.diff(offsets)
    nodes = np.empty_like(ids)
    width = int(ids.max()) + 1
    used = 0
    for level in range(int(counts.max())):
        at = offsets[:-1][counts > level] + level
        before = nodes[at - 1].astype(np.int64) + 1 if level else np.zeros(len(at), np.int64)
        names, node = np.unique(before * width + ids[at], return_inverse=True)
        nodes[at] = node + used
        used += len(names)
    return nodes
