"""Growing columns: a trace is collected chunk by chunk and ends as one Workload, never held twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike, NDArray

from simtool.errors import InputError
from simtool.traces.prefixes import PrefixColumn
from simtool.traces.rows import take
from simtool.workload import Workload, check_workload


class Column:
    """A one-dimensional array that grows in place (realloc), so that appending needs no second copy."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._data: NDArray[np.generic] = np.empty(1024, dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, values: NDArray[np.generic]) -> None:
        """Append values (cast to the column's dtype)."""
        end = self._length + len(values)
        if end > len(self._data):
            self._data.resize(max(end, len(self._data) * 5 // 4), refcheck=False)
        self._data[self._length : end] = values
        self._length = end

    def finish(self) -> NDArray[np.generic]:
        """The array, cut to its length. The column must not be used afterwards."""
        self._data.resize(self._length, refcheck=False)
        return self._data


class TraceColumns:
    """Collects the rows of one trace file; `finish` sorts, drops and checks them and returns the Workload."""

    def __init__(self, name: str, prefix_block_tokens: int = 16) -> None:
        self.name = name
        self.prefix_block_tokens = prefix_block_tokens
        self.dropped = 0
        self.notes: list[str] = []
        self.max_concurrency = 0
        self.warmup_requests = 0
        self._arrival = Column(np.float64)
        self._input = Column(np.int32)
        self._output = Column(np.int32)
        self._priority = Column(np.int32)
        self._follows = Column(np.int32)
        self._think = Column(np.float64)
        self._prefixes = PrefixColumn()

    def extend(
        self,
        arrival_s: NDArray[np.float64],
        input_tokens: NDArray[np.int32],
        output_tokens: NDArray[np.int32],
        *,
        priority: NDArray[np.int32] | None = None,
        prefix: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
        follows: tuple[NDArray[np.int32], NDArray[np.float64]] | None = None,
    ) -> None:
        """Append a chunk of rows. prefix: (flat ids, ids per row). follows: (row number or -1, think seconds).

        Columns that a chunk lacks are filled with their neutral value once a later chunk has them.
        """
        before = len(self._arrival)
        self._arrival.extend(arrival_s)
        self._input.extend(input_tokens)
        self._output.extend(output_tokens)
        rows = len(arrival_s)
        if priority is not None or len(self._priority):
            self._priority.extend(np.zeros(before - len(self._priority), np.int32))
            self._priority.extend(np.zeros(rows, np.int32) if priority is None else priority)
        if follows is not None or len(self._follows):
            missing = before - len(self._follows)
            self._follows.extend(np.full(missing, -1, np.int32))
            self._think.extend(np.zeros(missing))
            self._follows.extend(np.full(rows, -1, np.int32) if follows is None else follows[0])
            self._think.extend(np.zeros(rows) if follows is None else follows[1])
        self._prefixes.extend(before, rows, prefix)

    def finish(self, *, shift_to_zero: bool, whole_blocks_only: bool = False) -> Workload:
        """The workload, sorted (stably) by arrival. shift_to_zero: the first arrival becomes second 0.

        whole_blocks_only: forget prefix ids of blocks that the prompt does not fill (Mooncake's last one).
        Raises InputError when no row is left.
        """
        if not len(self._arrival):
            detail = f" ({self.dropped} rows without output tokens were dropped)" if self.dropped else ""
            raise InputError(self.name, f"the trace has no requests{detail}", "give a file with at least one request")
        arrival_s = self._arrival.finish().astype(np.float64, copy=False)
        if shift_to_zero:
            arrival_s -= arrival_s.min()
        input_tokens = self._input.finish().astype(np.int32, copy=False)
        limit = input_tokens // self.prefix_block_tokens if whole_blocks_only else None
        ids, offsets = self._prefixes.finish(limit)
        workload = Workload(
            arrival_s=arrival_s,
            input_tokens=input_tokens,
            output_tokens=self._output.finish().astype(np.int32, copy=False),
            priority=self._priority.finish().astype(np.int32, copy=False),
            prefix_ids=ids,
            prefix_offsets=offsets,
            prefix_block_tokens=self.prefix_block_tokens,
            follows=self._follows.finish().astype(np.int32, copy=False),
            think_s=self._think.finish().astype(np.float64, copy=False),
            max_concurrency=self.max_concurrency,
            source=self._source(),
        )
        beyond = np.flatnonzero(workload.follows >= workload.num_requests)
        if len(beyond):
            row = int(beyond[0])
            rule = f"the trace has {workload.num_requests} requests, numbered from 0"
            raise InputError(f"{self.name}: request {row} follows {workload.follows[row]}", rule)
        if np.any(arrival_s[1:] < arrival_s[:-1]):
            workload = take(workload, np.argsort(arrival_s, kind="stable"))
        workload = replace(workload, warmup_requests=self.warmup_requests)
        check_workload(workload)
        return workload

    def _source(self) -> str:
        """Where the rows come from and what was done to them."""
        notes = list(self.notes)
        if self.dropped:
            notes.append(f"{self.dropped} rows without output tokens dropped")
        return self.name + (f" ({'; '.join(notes)})" if notes else "")
