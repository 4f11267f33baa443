"""Mixed clusters: never worse than the baseline, equal to brute force, checked independently, bounds hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from simtool.metrics import Slo
from simtool.plan import Parallel, Plan, Pool
from simtool.planners.check import CheckError, check_placement, check_plan
from simtool.planners.columns import enumerate_columns
from simtool.planners.evaluate import simulate_plan
from simtool.planners.master import Master
from simtool.planners.mixed import plan_mixed
from simtool.planners.mixed_search import open_mixed
from simtool.planners.objective import objective_value
from simtool.planners.placement import Machine, even_placement, flow_bound, place_layers, stage_flow
from simtool.planners.question import Space
from simtool.planners.search import Budget
from tests.planners import standin

SPACE = Space(max_num_seqs=(32,), max_num_batched_tokens=(128,), tp=(1, 2))


@pytest.mark.parametrize("objective", ["cost-per-token", "throughput-per-gpu", "tpot"])
def test_mixed_equals_brute_force(objective):
    tool = standin.backend(fast=2, slow=2, weights=2500.0)
    work = standin.workload(n=6, outputs=4, concurrency=6)
    question = standin.question(work, devices="2xfast+2xslow", objective=objective, space=replace(SPACE, tp=(1,)))
    answer, certificate = plan_mixed(question, backend=tool, budget=Budget())
    columns, _, left_out = enumerate_columns(question, tool)
    assert left_out == 0
    search = open_mixed(question, tool, columns)
    values = []
    for counts in product(range(3), repeat=len(columns)):
        used = [sum(c.takes[g] * n for c, n in zip(columns, counts, strict=True)) for g in range(2)]
        if any(counts) and max(used) <= 2:
            plan = search.plan(counts)
            specs = [c.spec for c, n in zip(columns, counts, strict=True) if n]
            run = simulate_plan(tool, plan, specs, work, Slo())
            values.append(objective_value(objective, run.outcome))
    best = max(values) if objective == "throughput-per-gpu" else min(values)
    assert answer.legal == len(values) == answer.simulated + answer.pruned
    assert certificate.status == "OPTIMAL"
    assert answer.gap == 0
    assert answer.best.objective == pytest.approx(best)
    check_plan(answer.best.plan, tool)


def test_a_list_and_the_solver_agree():
    takes = [(1, 0), (0, 1), (0, 2), (1, 1)]
    for least_weight, leaders in ((False, ()), (True, ()), (False, (3.0, 1.0, 2.0, 1.5))):
        ask = {"takes": takes, "available": (2, 3), "kinds": (0, 1, 0, 1), "cap": 2.0, "weights": (4.0, 1.0, 2.0, 5.0)}
        masters = [Master(**ask, least_weight=least_weight, leader_costs=leaders, listed=n) for n in (0, 1000)]
        for master in masters:
            master.add_row([0.9, 0.2, 0.5, 1.2], 0.1)
            master.add_row([0.8, 0.3, 0.5, 1.0], 0.0)
        solved, listed = masters
        for _ in range(solved.combinations()):
            (by_solver, bound), (_, value) = solved.best(), listed.best()
            assert bound == pytest.approx(value, rel=1e-4)
            solved.tried.append(by_solver)
            listed.tried.append(by_solver)
        assert solved.best() is None
        assert listed.best() is None


def test_mixed_pipelines_are_proposed_when_no_type_holds_the_model_alone():
    tool = standin.backend(fast=1, slow=2, weights=6000.0)
    question = standin.question(standin.workload(concurrency=4), devices="1xfast+2xslow", space=replace(SPACE, tp=(1,)))
    answer, _ = plan_mixed(question, backend=tool)
    pool = answer.best.plan.pools[0]
    assert set(pool.stage_devices) == {"fast", "slow"}
    assert sum(pool.parallel.layers_per_stage) == 8
    assert answer.best.bound >= answer.best.objective


def test_checker_names_the_broken_rule():
    tool = standin.backend(fast=2, slow=1)

    def plan(**changes):
        pool = Pool(device="fast", **changes)
        return Plan(model="toy", cluster="", pools=(pool,))

    check_plan(plan(replicas=2), tool)
    for rule, changes in (
        ("devices", {"replicas": 3}),
        ("layers", {"parallel": Parallel(pp=2, layers_per_stage=(4, 5))}),
        ("stages", {"parallel": Parallel(pp=2), "stage_devices": ("fast",)}),
        ("experts", {"parallel": Parallel(ep=2)}),
    ):
        with pytest.raises(CheckError, match=f"^{rule}"):
            check_plan(plan(**changes), tool)


def _brute_flow(machines: list[Machine], layers: int) -> float:
    """Every contiguous range for every machine."""
    options = []
    for machine in machines:
        ranges = [(0, 0)] + [(s, k) for k in machine.rate for s in range(layers - k + 1)]
        options += [[(machine, *r) for r in ranges]] * machine.count
    best = 0.0
    for chosen in product(*options):
        flow = min(sum(m.rate[k] for m, s, k in chosen if k and s <= layer < s + k) for layer in range(layers))
        best = max(best, flow)
    return best


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_placement_brackets_the_brute_force_optimum(layers):
    machines = [
        Machine(name="a", count=2, rate={1: 10.0, 2: 6.0, 3: 3.5}),
        Machine(name="b", count=1, rate={1: 7.0, 2: 4.0}),
    ]
    found = place_layers(machines, layers)
    best = _brute_flow(machines, layers)
    assert found.baseline_flow <= found.flow * (1 + 1e-9)
    assert found.flow <= best * (1 + 1e-6)
    assert best <= found.certificate.bound * (1 + 1e-6)
    if found.certificate.closed:
        assert found.flow == pytest.approx(best)
    ranges, first = [], 0
    for stage in found.stages:
        for kind, n in enumerate(stage.machines):
            ranges += [(kind, first, stage.layers)] * n
        first += stage.layers
    check_placement(ranges, [2, 1], [m.rate for m in machines], layers, found.flow)
    with pytest.raises(CheckError, match="flow"):
        check_placement(ranges, [2, 1], [m.rate for m in machines], layers, found.flow * 1.01)


def test_rates_need_not_fall_with_layers():
    machines = [Machine(name="t4", count=4, rate={1: 100.0, 2: 40.0, 3: 45.0})]
    found = place_layers(machines, 12)
    assert found.flow == pytest.approx(45.0)
    assert flow_bound(machines, 12) == pytest.approx(45.0)
    assert stage_flow(even_placement(machines, 12), machines) <= found.flow
