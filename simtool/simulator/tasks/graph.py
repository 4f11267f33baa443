"""TaskGraph: tasks, what they run on, and how they share it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from simtool.errors import InputError
from simtool.simulator.tasks.task import Resource, Store, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGraph:
    """A step, or any other work. Tasks refer to earlier and later tasks by index; `check` refuses cycles.

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


def check_graph(graph: TaskGraph) -> None:
    """InputError for names that are double or unknown, numbers that are none, and what could never start."""
    names = graph.rooms
    if len(set(names)) < len(names):
        raise InputError(sorted(names), "resources and stores must have names of their own")
    for resource in graph.resources:
        _check_number(resource.rate, f"rate of {resource.name}")
    for store in graph.stores:
        _check_number(store.capacity, f"capacity of {store.name}")
    rates, stores = graph.rates, {store.name: store.capacity for store in graph.stores}
    for task in graph.tasks:
        _check_task(task, rates, stores, len(graph.tasks))
    for pair, factor in graph.interference.items():
        if not 0.0 < factor <= 1.0:
            raise InputError(factor, f"interference of {pair} must be in (0, 1]")


def stream_edges(tasks: Iterable[Task]) -> list[tuple[int, int]]:
    """(before, after) of neighbours in a stream."""
    last: dict[str, int] = {}
    edges = []
    for index, task in enumerate(tasks):
        if task.stream:
            if task.stream in last:
                edges.append((last[task.stream], index))
            last[task.stream] = index
    return edges


def _check_task(task: Task, rates: Mapping[str, float], stores: Mapping[str, float], count: int) -> None:
    for amounts, known, what in (
        (task.work, rates, "resource"),
        (task.holds, rates, "resource"),
        (task.takes, stores, "store"),
        (task.gives, stores, "store"),
    ):
        for name, amount in amounts.items():
            if name not in known:
                raise InputError(name, f"is no {what} of the graph", f"task {task.name} uses it")
            _check_number(amount, f"{name} of task {task.name}")
    for seconds in (task.latency_s, task.shortest_s, task.weight):
        _check_number(seconds, f"seconds or weight of task {task.name}")
    for name, amount in (*task.holds.items(), *task.takes.items()):
        most = (rates if name in rates else stores)[name]
        if amount > most:
            raise InputError(amount, f"task {task.name} needs more than the {most} of {name} that there are")
    if any(not 0 <= index < count for index in task.after):
        raise InputError(task.after, f"task {task.name} waits for tasks that the graph lacks")


def _check_number(value: float, what: str) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InputError(value, f"{what} must be finite and not negative")
