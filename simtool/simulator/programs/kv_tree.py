"""KvTree: the KV cache of a branching request over its decode iterations, a segment a node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTree:
    """Segments as columns int64[n], parents before their children; a forest is allowed.

    parent: row of the segment that comes before in the sequence, -1 for a root. tokens: when the segment is whole.
    start, end: first and last iteration that writes a token of it, one an iteration; what exceeds them was there at
    its start (a prefilled prompt). In these iterations it is live: its whole path is read. An end one before the start
    writes nothing. Build it with `kv_tree`.
    """

    parent: Ints
    tokens: Ints
    start: Ints
    end: Ints

    def depth(self) -> Ints:
        """Segments above each one."""
        found = np.zeros(len(self.parent), np.int64)
        for row, parent in enumerate(self.parent):
            found[row] = found[parent] + 1 if parent >= 0 else 0
        return found

    def above_tokens(self) -> Ints:
        """Tokens on the path above each segment, its own left out."""
        found = np.zeros(len(self.parent), np.int64)
        for row, parent in enumerate(self.parent):
            if parent >= 0:
                found[row] = found[parent] + self.tokens[parent]
        return found


def kv_tree(parent: Sequence[int], tokens: Sequence[int], start: Sequence[int], end: Sequence[int]) -> KvTree:
    """A checked tree. Raises InputError that names the first segment which breaks a rule."""
    columns = [np.asarray(column, np.int64) for column in (parent, tokens, start, end)]
    if any(column.ndim != 1 or len(column) != len(columns[0]) for column in columns):
        raise InputError("columns of a KV tree", "must be of one length", "one entry a segment in each")
    above, length, first, last = columns
    rows = np.arange(len(above))
    inner = above >= 0
    waits = np.ones(len(above), bool)
    legal = inner & (above < rows)
    waits[legal] = first[legal] > last[above[legal]]
    rules = (
        ((above >= -1) & (above < rows), "has a parent that does not come before it"),
        (last >= first - 1, "ends before it starts"),
        (length >= last - first + 1, "has fewer tokens than iterations that write one"),
        (waits, "starts before its parent has ended"),
    )
    for holds, rule in rules:
        if not holds.all():
            raise InputError(f"segment {int(np.argmin(holds))}", rule, "see KvTree")
    return KvTree(parent=above, tokens=length, start=first, end=last)
