"""The same task graphs, simulated as plainly as possible: lists and dicts, everything reckoned anew at each event.

Shares no code with the engine but the words that describe a graph. Textbook filling: all speeds of a priority rise by a
step at a time until a resource or a task is at its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.task import RateChange, Task

TIE = 1e-12  # events nearer than this, relative to the clock, are one


@dataclass
class Run:
    """What is known of a task while it runs."""

    left: float = 1.0
    launched_s: float = math.inf
    start_s: float = math.nan
    end_s: float = math.nan
    keys: dict[str, float] = field(default_factory=dict)


class NaiveTasks:
    """One simulation. `usage` integrates units served, by (task, resource)."""

    def __init__(self, graph: TaskGraph, changes: Sequence[RateChange] = ()) -> None:
        self.graph, self.now = graph, 0.0
        self.rates = {resource.name: resource.rate for resource in graph.resources}
        self.taken = dict.fromkeys([*self.rates, *(store.name for store in graph.stores)], 0.0)
        self.sizes = {store.name: store.capacity for store in graph.stores}
        self.changes = sorted(changes, key=lambda change: change.at_s)
        self.runs = [Run() for _ in graph.tasks]
        self.before: list[set[int]] = [set(task.after) for task in graph.tasks]
        last: dict[str, int] = {}
        for index, task in enumerate(graph.tasks):
            if task.stream:
                if task.stream in last:
                    self.before[index].add(last[task.stream])
                last[task.stream] = index
        self.line: list[int] = []
        self.known: set[int] = set()
        self.running: list[int] = []
        self.served: dict[tuple[int, str], float] = {}

    def run(self) -> list[tuple[float, float]]:
        """(start, end) of every task; NaN for those that never start or end."""
        while True:
            while self.changes and self.changes[0].at_s <= self.now:
                change = self.changes.pop(0)
                self.rates[change.resource] = change.rate
            while self.instant():
                pass
            speeds = self.speeds()
            ends = {task: self.when(task, speeds[task]) for task in self.running}
            soonest = min(ends.values(), default=math.inf)
            if self.changes and any(math.isnan(run.end_s) for run in self.runs):
                soonest = min(soonest, self.changes[0].at_s)
            if soonest == math.inf:
                return [(run.start_s, run.end_s) for run in self.runs]
            self.serve(speeds, max(soonest, self.now))
            for task in sorted((t for t in ends if ends[t] <= self.now * (1 + TIE)), key=lambda t: (ends[t], t)):
                if self.runs[task].launched_s == math.inf:
                    self.runs[task].launched_s = self.now
                else:
                    self.end(task)

    def when(self, task: int, speed: float) -> float:
        run = self.runs[task]
        if run.launched_s == math.inf:
            return run.start_s + self.graph.tasks[task].latency_s
        return self.now + run.left / speed if speed > 0 else math.inf

    def instant(self) -> bool:
        """Start what can start; end what takes no time. Whether anything happened."""
        for index in range(len(self.runs)):
            if index not in self.known and all(not math.isnan(self.runs[b].end_s) for b in self.before[index]):
                self.known.add(index)
                self.line.append(index)
        self.line.sort(key=lambda index: self.graph.tasks[index].priority)  # stable
        happened = False
        for index in list(self.line):
            task = self.graph.tasks[index]
            if all(self.fits(name, units) for name, units in [*task.holds.items(), *task.takes.items()]):
                happened = True
                self.line.remove(index)
                self.runs[index].start_s = self.now
                for name, units in [*task.holds.items(), *task.takes.items()]:
                    self.taken[name] += units
                if not task.latency_s:
                    self.runs[index].launched_s = self.now
                self.running.append(index)
        for index in sorted(self.running):
            task = self.graph.tasks[index]
            done = not any(task.work.values()) and not task.shortest_s and not any(task.holds.values())
            if done and self.runs[index].launched_s <= self.now:
                happened = True
                self.end(index)
        return happened

    def fits(self, name: str, units: float) -> bool:
        most = self.sizes.get(name, self.rates.get(name, 0.0))
        return units == 0 or self.taken[name] + units <= most * (1 + 1e-12)

    def end(self, index: int) -> None:
        task = self.graph.tasks[index]
        self.runs[index].end_s = self.now
        self.running.remove(index)
        for name, units in [*task.holds.items(), *task.gives.items()]:
            self.taken[name] = max(self.taken[name] - units, 0.0)

    def serve(self, speeds: dict[int, float], until: float) -> None:
        for task in self.running:
            if self.runs[task].launched_s == math.inf or speeds[task] in (0.0, math.inf):
                continue
            done = min(speeds[task] * (until - self.now), self.runs[task].left)
            self.runs[task].left -= done
            for name, units in self.graph.tasks[task].work.items():
                self.served[task, name] = self.served.get((task, name), 0.0) + done * units
        self.now = until

    def speeds(self) -> dict[int, float]:
        tasks = {i: self.graph.tasks[i] for i in self.running if self.runs[i].launched_s <= self.now}
        free = {name: max(rate - self.taken[name], 0.0) for name, rate in self.rates.items()}
        speeds = dict.fromkeys(self.running, 0.0)
        for index, task in tasks.items():
            if not any(task.work.values()):
                speeds[index] = 1.0 / task.shortest_s if task.shortest_s else math.inf
        for priority in sorted({task.priority for task in tasks.values()}):
            rising = {i: t for i, t in tasks.items() if t.priority == priority and any(t.work.values())}
            self.raise_all({i: t for i, t in rising.items() if self.alone(t) > 0}, free, speeds)
        waved = {index: self.waved(task, speeds[index], free) for index, task in tasks.items()}
        return {**speeds, **{index: speed * self.beside(index, tasks) for index, speed in waved.items()}}

    def alone(self, task: Task) -> float:
        return min(
            [self.cap(task)]
            + [
                self.rates[name] / units * self.quantised(task, name, self.rates[name])
                for name, units in task.work.items()
                if units
            ]
        )

    def cap(self, task: Task) -> float:
        return 1.0 / task.shortest_s if task.shortest_s else math.inf

    def quantised(self, task: Task, name: str, units: float) -> float:
        if name != self.graph.tiled or not task.tiles or units <= 0:
            return 1.0
        rounds = task.tiles / units
        return rounds / math.ceil(rounds * (1 - 1e-12))

    def raise_all(self, rising: dict[int, Task], free: dict[str, float], speeds: dict[int, float]) -> None:
        share = {index: task.weight or self.alone(task) for index, task in rising.items()}
        while rising:
            demand = {
                name: sum(share[i] * task.work.get(name, 0.0) for i, task in rising.items()) for name in self.rates
            }
            steps = [free[name] / units for name, units in demand.items() if units > 0]
            steps += [(self.cap(task) - speeds[i]) / share[i] for i, task in rising.items()]
            step = max(min(steps), 0.0)
            for index in rising:
                speeds[index] += step * share[index]
            for name, units in demand.items():
                free[name] = max(free[name] - step * units, 0.0)
                if free[name] < 1e-9 * self.rates[name]:
                    free[name] = 0.0
            full = {name for name, units in demand.items() if units > 0 and free[name] == 0.0}
            rising = {
                i: task
                for i, task in rising.items()
                if not any(task.work.get(name, 0.0) for name in full) and speeds[i] < self.cap(task) * (1 - 1e-12)
            }

    def waved(self, task: Task, speed: float, free: dict[str, float]) -> float:
        work = task.work.get(self.graph.tiled, 0.0)
        if not task.tiles or not work or not speed:
            return speed
        could = work * speed + free[self.graph.tiled]
        return min(speed, could / work * self.quantised(task, self.graph.tiled, could))

    def beside(self, index: int, tasks: dict[int, Task]) -> float:
        mine = {*tasks[index].work, *tasks[index].holds}
        factors = [
            self.graph.interference.get((tasks[index].kind, other.kind), 1.0)
            for i, other in tasks.items()
            if i != index and any(other.work.get(n) or other.holds.get(n) for n in mine)
        ]
        return min(factors, default=1.0)
