"""Random small graphs for the laws."""

from __future__ import annotations

from hypothesis import strategies as st

from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.task import RateChange, Resource, Store, Task

NAMES = ("sm", "hbm", "link")
amount = st.floats(0.05, 3.0)


@st.composite
def tasks(draw, number: int, index: int, *, plain: bool) -> Task:
    """A task that waits for some earlier ones. plain: work alone, without what makes a schedule lose time."""
    used = draw(st.sets(st.sampled_from(NAMES), min_size=1))
    before = draw(st.sets(st.integers(0, index - 1), max_size=2)) if index else set()
    more = {}
    if not plain:
        more = {
            "shortest_s": draw(st.sampled_from((0.0, 0.0, 1.37))),
            "priority": draw(st.integers(0, 2)),
            "weight": draw(st.sampled_from((0.0, 0.0, 0.7, 2.3))),
            "tiles": draw(st.sampled_from((0, 0, 5, 13))),
            "kind": draw(st.sampled_from(("", "a", "b"))),
            "holds": draw(st.sampled_from(({}, {}, {"sm": 0.9}))),
        }
        if draw(st.booleans()):
            more |= {"takes": {"slots": 1.0}, "gives": {"slots": 1.0}}
    return Task(
        name=f"t{index}",
        stream=draw(st.sampled_from(("", "one", "two"))),
        after=tuple(sorted(before)),
        work={name: draw(amount) for name in sorted(used)},
        latency_s=draw(st.sampled_from((0.0, 0.31, 0.77))),
        **more,
    )


@st.composite
def graphs(draw, *, plain: bool = False, most: int = 9) -> TaskGraph:
    """A graph of up to `most` tasks on three resources."""
    number = draw(st.integers(1, most))
    return TaskGraph(
        resources=tuple(Resource(name=name, rate=draw(st.sampled_from((1.0, 2.5, 4.0)))) for name in NAMES),
        tasks=tuple(draw(tasks(number, index, plain=plain)) for index in range(number)),
        stores=(Store(name="slots", capacity=2.0),),
        interference={} if plain else {("a", "b"): 0.6, ("b", "b"): 0.8},
    )


changes = st.lists(
    st.builds(
        RateChange, at_s=st.floats(0.0, 4.0), resource=st.sampled_from(NAMES), rate=st.sampled_from((0.0, 1.3, 3.0))
    ),
    max_size=3,
).map(lambda found: [*found, *(RateChange(at_s=5.0, resource=name, rate=2.0) for name in NAMES)])
