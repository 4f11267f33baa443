"""The compiled loop and the interpreted one give the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys

from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import RateChange, Resource, Store, Task


def digest() -> str:
    """One hash over graphs with everything in them."""
    total = hashlib.sha256()
    for seed in range(20):
        rng = random.Random(seed)
        tasks = tuple(some_task(rng, index) for index in range(60))
        graph = TaskGraph(
            resources=tuple(Resource(name=name, rate=2.0) for name in "abc"),
            tasks=tasks,
            stores=(Store(name="room", capacity=2.0),),
            interference={("x", "y"): 0.7, ("y", "y"): 0.9},
            tiled="a",
        )
        changes = [RateChange(at_s=rng.uniform(0, 20), resource="b", rate=rate) for rate in (0.0, 3.0)]
        changes.append(RateChange(at_s=21.0, resource="b", rate=1.0))
        timeline = simulate_tasks(graph, changes, record=True)
        total.update(timeline.start_s.tobytes() + timeline.end_s.tobytes() + timeline.segments.tobytes())
    return total.hexdigest()


def some_task(rng: random.Random, index: int) -> Task:
    holds = rng.random() < 0.2
    return Task(
        name=f"t{index}",
        stream=rng.choice(("", "p", "q", "r")),
        after=(rng.randrange(index),) if index and rng.random() < 0.5 else (),
        work={name: rng.uniform(0.1, 2.0) for name in rng.sample("abc", rng.randint(0, 3))},
        latency_s=rng.choice((0.0, 0.1)),
        shortest_s=rng.choice((0.0, 0.5)),
        holds={"c": 0.1} if holds else {},
        takes={"room": 1.0} if index % 7 == 0 else {},
        gives={"room": 1.0} if index % 7 == 0 else {},
        priority=rng.randint(0, 2),
        weight=rng.choice((0.0, 1.0)),
        tiles=rng.choice((0, 7)),
        kind=rng.choice(("", "x", "y")),
    )


def test_compiled_equals_interpreted() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    program = "from tests.tasks.test_compiled import digest; print(digest())"
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest()
