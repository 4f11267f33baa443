"""Task completions per CPU-second of the task-graph engine, beside a plain simulator and one made of simpy processes.

    python benchmarks/simulator/task_speed.py

64 streams; each task works on two of 64 resources, so that about half of what runs is tied together and shares anew
at every end. CPU time (process_time) of the whole call from Task objects to Timeline, the best of several; making the
objects and compiling the loop apart.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import simpy

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simtool.simulator.tasks.building import make_arrays
from simtool.simulator.tasks.graph import TaskGraph, edge_array
from simtool.simulator.tasks.handle import handle
from simtool.simulator.tasks.loop import run_graph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import Resource, Task
from tests.tasks.naive_tasks import NaiveTasks


def graph_of(tasks: int, *, resources: int = 64, streams: int = 64, seed: int = 0) -> TaskGraph:
    """Random work on two resources a task; half of the tasks also wait for one of the 200 before them."""
    rng = random.Random(seed)

    def task(index: int) -> Task:
        work = {f"r{rng.randrange(resources)}": rng.random() + 0.1 for _ in range(2)}
        after = (rng.randrange(max(0, index - 200), index),) if index and rng.random() < 0.5 else ()
        return Task(name=f"t{index}", stream=f"s{index % streams}", work=work, after=after)

    rooms = tuple(Resource(name=f"r{place}", rate=1.0) for place in range(resources))
    return TaskGraph(resources=rooms, tasks=tuple(task(index) for index in range(tasks)))


def best(run: Callable[[], object], times: int) -> float:
    """Least CPU seconds of several calls."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


class SimpyTasks:
    """The same sharing as simpy processes: a process a task; whoever begins or ends makes all reckon their end anew."""

    def __init__(self, graph: TaskGraph) -> None:
        self.env, self.graph = simpy.Environment(), graph
        self.rates = graph.rates
        self.ended = [self.env.event() for _ in graph.tasks]
        self.left: dict[int, float] = {}
        self.speed: dict[int, float] = {}
        self.changed = self.env.event()
        self.last_s = 0.0
        before: list[list[int]] = [[] for _ in graph.tasks]
        for first, second in edge_array(graph.tasks).tolist():
            before[second].append(first)
        for index in range(len(graph.tasks)):
            self.env.process(self.task(index, before[index]))

    def run(self) -> float:
        """The makespan (the clock itself runs on to the last timeout that nobody waits for any more)."""
        self.env.run()
        return self.last_s

    def task(self, index: int, before: list[int]) -> simpy.events.ProcessGenerator:
        yield simpy.AllOf(self.env, [self.ended[first] for first in before])
        self.left[index] = 1.0
        self.reshare()
        while True:
            since, speed = self.env.now, self.speed[index]
            done = self.env.timeout(self.left[index] / speed)
            yield done | self.changed
            self.left[index] -= speed * (self.env.now - since)
            if self.left[index] <= 1e-12:
                break
        del self.left[index]
        self.last_s = float(self.env.now)
        self.ended[index].succeed()
        self.reshare()

    def reshare(self) -> None:
        """Progressive filling over all that run."""
        work = {index: self.graph.tasks[index].work for index in self.left}
        share = {index: min(self.rates[name] / units for name, units in work[index].items()) for index in work}
        free, rising = dict(self.rates), set(work)
        speed = dict.fromkeys(work, 0.0)
        while rising:
            demand: dict[str, float] = {}
            for index in rising:
                for name, units in work[index].items():
                    demand[name] = demand.get(name, 0.0) + share[index] * units
            step = min(free[name] / units for name, units in demand.items())
            for index in rising:
                speed[index] += step * share[index]
            full = set()
            for name, units in demand.items():
                free[name] -= step * units
                if free[name] <= 1e-9 * self.rates[name]:
                    full.add(name)
            rising = {index for index in rising if not full & work[index].keys()}
        self.speed = speed
        changed, self.changed = self.changed, self.env.event()
        changed.succeed()


def show(name: str, tasks: int, seconds: float, note: str = "") -> None:
    print(f"{name:<52}{tasks / seconds:>12,.0f} tasks/CPU-s  {note}", flush=True)


def main() -> None:
    simulate_tasks(graph_of(10))
    for tasks in (1_000, 10_000, 100_000):
        graph = graph_of(tasks)
        timeline = simulate_tasks(graph)
        note = f"makespan {timeline.makespan_s:.6g}"
        show(f"{tasks:,} tasks", tasks, best(lambda graph=graph: simulate_tasks(graph), 5), note)
    graph = graph_of(10_000)
    show("  of which: columns and arrays", 10_000, best(lambda: make_arrays(graph, (), 0), 5))
    runs = [handle(make_arrays(graph, (), 0)) for _ in range(5)]
    show("  of which: the loop", 10_000, best(lambda: run_graph(runs.pop()), 5))
    show("  with every change of speed recorded", 10_000, best(lambda: simulate_tasks(graph, record=True), 5))
    small = graph_of(300)
    ours = best(lambda: simulate_tasks(small), 5)
    print(f"300 tasks: {simulate_tasks(small).makespan_s:.9g} s simulated")
    show("300 tasks", 300, ours)
    for name, run in (
        ("simpy processes", lambda: SimpyTasks(small).run()),
        ("plain Python", lambda: max(end for _, end in NaiveTasks(small).run())),
    ):
        seconds = best(run, 2)
        show(f"  {name}: {run():.9g} s simulated", 300, seconds, f"{seconds / ours:,.0f}x slower")


if __name__ == "__main__":
    main()
