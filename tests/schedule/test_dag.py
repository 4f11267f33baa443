"""DAGs on unlike processors: the published example, brute force, bounds, the checker."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.planners.check import CheckError
from simtool.planners.schedule.dag import DagProblem, Edge
from simtool.planners.schedule.dag_plan import retime, schedule_dag
from simtool.planners.schedule.heft import heft
from simtool.planners.schedule.progress import Effort
from simtool.planners.schedule.verify import check_dag_schedule

INF = float("inf")
# Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002, figure 2
DURATIONS = [14, 16, 9, 13, 19, 18, 11, 13, 19, 13, 8, 17, 12, 13, 10, 13, 16, 9, 7, 15, 11, 5, 11, 14, 18, 12, 20]
DURATIONS += [21, 7, 16]
EDGES = "1-2:18 1-3:12 1-4:9 1-5:11 1-6:14 2-8:19 2-9:16 3-7:23 4-8:27 4-9:23 5-9:13 6-8:15 7-10:17 8-10:11 9-10:13"


def ten_tasks():
    rows = np.array(DURATIONS, float).reshape(10, 3)
    parts = [part.replace(":", "-").split("-") for part in EDGES.split()]
    return problem_of(rows, [(int(i) - 1, int(j) - 1, float(c)) for i, j, c in parts])


def problem_of(rows, edges, distance=()):
    return DagProblem(
        durations=tuple(tuple(map(float, row)) for row in rows),
        edges=tuple(Edge(before=i, after=j, seconds=c) for i, j, c in edges),
        distance=distance,
    )


def check(problem, placed):
    check_dag_schedule(problem, placed.processor, placed.start_s, placed.makespan_s)


@st.composite
def problems(draw, most=5):
    count, processors = draw(st.integers(1, most)), draw(st.integers(1, 3))
    seconds = st.one_of(st.integers(0, 9).map(float), st.floats(0.0, 9.0))
    rows = draw(
        st.lists(
            st.lists(seconds | st.just(INF), min_size=processors, max_size=processors).filter(lambda r: min(r) < INF),
            min_size=count,
            max_size=count,
        )
    )
    pairs = [(i, j) for j in range(count) for i in range(j)]
    edges = [(i, j, draw(seconds)) for i, j in pairs if draw(st.booleans())]
    distance = ()
    if draw(st.booleans()):
        cell = st.floats(0.0, 3.0)
        distance = tuple(tuple(0.0 if p == q else draw(cell) for q in range(processors)) for p in range(processors))
    return problem_of(rows, edges, distance)


def brute_force(problem):
    """Best makespan over all assignments and all orders of starts."""
    tasks = range(len(problem.durations))
    best = INF
    for processor in product(*(problem.able(task) for task in tasks)):
        for order in permutations(tasks):
            place = {task: position for position, task in enumerate(order)}
            if all(place[edge.before] < place[edge.after] for edge in problem.edges):
                found = retime(problem, list(processor), [place[task] for task in tasks])
                best = min(best, found.makespan_s)
    return best


def test_topcuoglu():
    found = schedule_dag(ten_tasks())
    assert found.baseline.makespan_s == 80.0
    assert found.best.makespan_s == found.certificate.bound == 73.0
    assert found.certificate.status == "OPTIMAL"
    assert found.certificate.closed
    check(ten_tasks(), found.best)
    gaps = [row.gap for row in found.progress]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] == 0.0


@settings(max_examples=25, deadline=None)
@given(problems())
@example(DagProblem(durations=((5e-324,),), edges=(), distance=()))
@example(DagProblem(durations=((0.0,),), edges=(), distance=()))
def test_bound_optimum_heuristic(problem):
    found = schedule_dag(problem, Effort(limit=2.0))
    for placed in (found.best, found.baseline):
        check(problem, placed)
    least = brute_force(problem)
    assert found.certificate.bound <= least * (1 + 1e-9)
    assert least <= found.best.makespan_s * (1 + 1e-9)
    assert found.best.makespan_s <= heft(problem).makespan_s
    assert found.best.makespan_s == pytest.approx(least, rel=1e-3, abs=1e-12)


def test_repeats_exactly():
    rng = np.random.default_rng(3)
    rows = rng.uniform(1, 9, (14, 3))
    problem = problem_of(rows, [(int(rng.integers(0, j)), j, float(rng.uniform(0, 9))) for j in range(1, 14)])
    first, second = (schedule_dag(problem, Effort(limit=0.2)) for _ in range(2))
    assert first.best == second.best
    assert first.certificate.bound == second.certificate.bound
    assert first.best.makespan_s < first.baseline.makespan_s


def test_a_processor_that_cannot():
    found = schedule_dag(problem_of([[INF, 5.0], [1.0, INF]], [(0, 1, 2.0)]))
    assert found.best.processor == (1, 0)
    assert found.best.makespan_s == 8.0


def test_empty():
    assert schedule_dag(DagProblem(durations=())).best.makespan_s == 0.0


@pytest.mark.parametrize(
    ("problem", "rule"),
    [
        (problem_of([[INF, INF]], []), "one of them finite"),
        (problem_of([[1.0], [1.0, 2.0]], []), "needs 1 durations"),
        (problem_of([[-1.0]], []), "at least 0"),
        (problem_of([[1.0], [1.0]], [(0, 1, 1.0), (1, 0, 1.0)]), "wait for each other"),
        (problem_of([[1.0], [1.0]], [(0, 2, 1.0)]), "an edge joins"),
        (problem_of([[1.0], [1.0]], [(0, 1, INF)]), "finite seconds"),
        (problem_of([[1.0, 1.0]], [], ((0.0, 1.0),)), "table of 2 x 2"),
    ],
)
def test_refused(problem, rule):
    with pytest.raises(InputError, match=rule):
        schedule_dag(problem)


@pytest.mark.parametrize(
    ("processor", "start", "end", "rule"),
    [
        ((0, 0), (0.0, 1.0), 3.0, "order"),
        ((0, 1), (0.0, 3.0), 5.0, "order"),
        ((0, 1), (0.0, 5.0), 6.0, "makespan"),
        ((0, 1), (-1.0, 5.0), 7.0, "able"),
    ],
)
def test_checker_catches(processor, start, end, rule):
    with pytest.raises(CheckError, match=rule):
        check_dag_schedule(problem_of([[2.0, 2.0], [2.0, 2.0]], [(0, 1, 3.0)]), processor, start, end)


def test_checker_catches_two_at_once():
    with pytest.raises(CheckError, match="one at a time"):
        check_dag_schedule(problem_of([[2.0], [2.0]], []), (0, 0), (0.0, 1.0), 3.0)
