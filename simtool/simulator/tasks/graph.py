"""TaskGraph: tasks, what they run on, and how they share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.simulator.tasks.task import Resource, Store, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGraph:
    """A step, or any other work. Tasks refer to earlier and later tasks by index; simulating refuses cycles.

    interference: (kind, other kind) → speed of the first while the second runs on a resource that both use; the
    smallest factor counts where several run. tiled: the resource whose kernels run in waves.
    """

    resources: tuple[Resource, ...]
    tasks: tuple[Task, ...]
    stores: tuple[Store, ...] = ()
    interference: Mapping[tuple[str, str], float] = field(default_factory=dict)
    tiled: str = "sm"

    @property
    def rates(self) -> dict[str, float]:
        """Resource → units a second."""
        return {resource.name: resource.rate for resource in self.resources}

    @property
    def rooms(self) -> list[str]:
        """Names of resources and stores."""
        return [*(resource.name for resource in self.resources), *(store.name for store in self.stores)]


def edge_array(tasks: Sequence[Task]) -> NDArray[np.int64]:
    """[k, 2] (before, after), each once and in order: `after` of the tasks, and neighbours in a stream."""
    n = len(tasks)
    counts = np.fromiter((len(task.after) for task in tasks), np.int64, n)
    try:
        before = np.array([first for task in tasks for first in task.after], np.int64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("after", "must hold indices of tasks") from None
    after = np.repeat(np.arange(n), counts)
    for place in np.flatnonzero((before < 0) | (before >= n))[:1]:
        raise InputError(int(before[place]), f"task {tasks[after[place]].name} waits for a task that the graph lacks")
    known: dict[str, int] = {"": -1}
    stream = np.array([known.setdefault(task.stream, len(known)) for task in tasks], np.int64)
    order = np.argsort(stream, kind="stable")
    neighbours = (stream[order[1:]] == stream[order[:-1]]) & (stream[order[1:]] >= 0)
    first = np.concatenate([before, order[:-1][neighbours]])
    second = np.concatenate([after, order[1:][neighbours]])
    codes = np.unique(first * n + second) if n else first
    return np.column_stack(np.divmod(codes, max(n, 1)))
