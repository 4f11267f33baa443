"""Search: equal to brute force, never worse than the baseline, honest about what it left open and why it failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simtool.errors import InfeasibleError, InputError
from simtool.metrics import Slo
from simtool.overlaps import STOCK, overlap_name
from simtool.plan import KvPolicy, Overlap, Parallel, Plan, Pool, Scheduler
from simtool.planners.baseline import baseline
from simtool.planners.capacity import at_rate, capacity
from simtool.planners.evaluate import meets, simulate_plan
from simtool.planners.legal import RULES, Setting, broken_rule, model_limits
from simtool.planners.objective import OBJECTIVES, maximised, objective_value
from simtool.planners.pareto import pareto
from simtool.planners.question import Space
from simtool.planners.search import Budget, plan
from simtool.planners.space import enumerate_plans, plan_label
from tests.planners import standin

SLO = Slo(ttft_s=0.1, tpot_s=0.0065, attainment=0.9)


def _all_runs(question, tool):
    proposals, _ = enumerate_plans(question, tool)
    runs = [simulate_plan(tool, p.plan, [p.spec], question.workload, question.slo) for p in proposals]
    return proposals, runs


def test_plan_equals_brute_force_in_every_objective():
    tool = standin.backend(fast=2)
    base = standin.question(standin.workload(n=20, concurrency=6), slo=SLO)
    proposals, runs = _all_runs(base, tool)
    assert any(meets(run, SLO) for run in runs)
    assert not all(meets(run, SLO) for run in runs)
    for objective in OBJECTIVES:
        values = [objective_value(objective, run.outcome) for run in runs if meets(run, SLO)]
        best = max(values) if maximised(objective) else min(values)
        answer = plan(replace(base, objective=objective), backend=tool)
        assert answer.best.objective == pytest.approx(best), objective
        assert answer.gap == 0
        assert answer.simulated + answer.pruned == answer.legal == len(proposals)
        first = runs[baseline(proposals)]
        if meets(first, SLO):
            own = objective_value(objective, first.outcome)
            assert answer.best.objective >= own if maximised(objective) else answer.best.objective <= own


def test_search_prunes_and_states_intervals():
    tool = standin.backend(fast=4)
    answer = plan(standin.question(standin.workload(n=30, concurrency=8)), backend=tool)
    assert answer.pruned > answer.simulated
    low, high = answer.intervals["output_throughput"]
    assert low <= answer.best.metrics["output_throughput"] <= high
    assert low < high
    assert {c.status for c in answer.candidates} >= {"best", "pruned"}


def test_a_budget_leaves_a_stated_gap():
    tool = standin.backend(fast=4)
    question = standin.question(standin.workload(n=30, concurrency=8))
    closed = plan(question, backend=tool)
    early = plan(question, backend=tool, budget=Budget(max_simulations=1))
    assert early.simulated == 1
    assert early.gap > 0
    assert early.best.objective <= closed.best.objective <= early.best.objective * (1 + early.gap) * (1 + 1e-9)


def test_same_question_same_answer():
    tool = standin.backend(fast=4)
    question = standin.question(standin.workload(n=30, concurrency=8))
    first, second = plan(question, backend=tool), plan(question, backend=tool)
    assert first.best == second.best
    assert first.candidates == second.candidates


def test_knobs_that_nothing_reaches_are_simulated_once():
    tool = standin.backend(fast=1, weights=1000.0)
    space = Space(max_num_seqs=(16, 32, 64), max_num_batched_tokens=(512,))
    answer = plan(standin.question(standin.workload(n=20, concurrency=4), space=space), backend=tool)
    assert answer.legal == 3
    assert answer.simulated == 1


def test_a_missed_slo_says_by_how_much_and_what_would_be_met():
    tool = standin.backend(fast=2)
    question = standin.question(standin.workload(n=20, concurrency=6), slo=Slo(ttft_s=1e-3, attainment=0.9))
    with pytest.raises(InfeasibleError) as caught:
        plan(question, backend=tool)
    assert caught.value.constraint == "slo ttft"
    limit_ms = float(caught.value.relaxation.split("ttft:")[1].split(" ")[0])
    relaxed = replace(question, slo=Slo(ttft_s=limit_ms / 1e3, attainment=0.9))
    assert plan(relaxed, backend=tool).best.meets_slo


def test_out_of_memory_is_not_a_missed_slo():
    tool = standin.backend(fast=2, weights=50000.0)
    question = standin.question(standin.workload(n=5), slo=Slo(ttft_s=1e-3))
    with pytest.raises(InfeasibleError, match="memory"):
        plan(question, backend=tool)


def test_a_request_that_fits_no_cache_is_named():
    tool = standin.backend(fast=1)
    with pytest.raises(InfeasibleError, match="kv-capacity"):
        plan(standin.question(standin.workload(n=3, inputs=4000)), backend=tool)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "speed"},
        {"slo": Slo(ttft_s=1.0, attainment=0.0)},
        {"objective": "goodput-per-gpu"},
        {"space": Space(tp=(0,))},
        {"space": Space(router=("random",))},
    ],
)
def test_malformed_questions_are_input_errors(changes):
    with pytest.raises(InputError):
        plan(standin.question(standin.workload(n=3), **changes), backend=standin.backend())


def _pool(**changes) -> Pool:
    scheduler = changes.pop("scheduler", {})
    replicas = changes.pop("replicas", 1)
    knobs = Scheduler(**{"max_num_seqs": 32, "max_num_batched_tokens": 512, **scheduler})
    return Pool(device="fast", replicas=replicas, parallel=Parallel(**changes), scheduler=knobs, kv=KvPolicy())


def test_overlaps_are_tried_where_the_library_has_them():
    overlaps = (Overlap(), STOCK["two-batch"], STOCK["nano"])
    space = Space(tp=(1,), pp=(1,), dp=(1, 4), all2all_backend=("deepep_low_latency",), overlap=overlaps)
    question = standin.question(standin.workload(n=3), space=space)
    proposals, refusals = enumerate_plans(question, standin.backend(fast=4, moe=True))
    found = {(p.plan.pools[0].parallel.sends_tokens, overlap_name(p.plan.pools[0].overlap)) for p in proposals}
    assert found == {(False, "none"), (True, "none"), (True, "two-batch")}
    assert "only where DeepEP sends tokens" in refusals.examples["overlap"]
    assert any("two-batch" in plan_label(proposal.plan) for proposal in proposals)


def test_exchanges_are_tried_where_ranks_share_experts():
    backends = ("allgather_reducescatter", "deepep_low_latency")
    question = standin.question(standin.workload(n=3), space=Space(tp=(1, 2), pp=(1,), all2all_backend=backends))
    proposals, refusals = enumerate_plans(question, standin.backend(fast=4, moe=True))
    found = {proposal.plan.pools[0].parallel for proposal in proposals}
    plain = {replace(parallel, all2all_backend=backends[0]) for parallel in found}
    sends = {parallel for parallel in plain if parallel.dp > 1 and parallel.ep > 1}
    assert sends
    assert found == plain | {replace(parallel, all2all_backend=backends[1]) for parallel in sends}
    assert "all2all-backend" not in refusals.counts
    group, limits = standin.backend(fast=4, moe=True).groups[0], model_limits(standin.backend(moe=True).architecture)
    for library, changes in (("trtllm", {"dp": 4, "ep": 4}), ("sglang", {"dp": 4, "ep": 2})):
        setting = Setting(limits=limits, group=group, library=library, quantised_on_load=False)
        broken = broken_rule(_pool(**changes, all2all_backend=backends[1]), setting)
        assert broken is not None
        assert broken[0] == "all2all-backend"
        assert broken_rule(_pool(**changes), setting) is None


@pytest.mark.parametrize(
    ("rule", "moe", "changes"),
    [
        ("devices", False, {"replicas": 5}),
        ("node-boundary", False, {"tp": 8}),
        ("heads", False, {"tp": 3}),
        ("layers", False, {"pp": 9}),
        ("layers", False, {"pp": 2, "layers_per_stage": (3, 4)}),
        ("data-parallel", False, {"dp": 2}),
        ("expert-degree", False, {"tp": 2, "ep": 2}),
        ("expert-degree", True, {"tp": 4, "ep": 2}),
        ("experts", True, {"dp": 3, "ep": 3}),
        ("kernel-library", False, {"scheduler": {"scheduling": "static"}}),
        ("kernel-library", False, {"scheduler": {"max_num_batched_tokens": 16}}),
    ],
)
def test_each_rule_has_a_name_and_a_message(rule, moe, changes):
    tool = standin.backend(fast=16 if rule == "layers" else 4, moe=moe)
    group = tool.groups[0]
    if rule == "node-boundary":
        group = replace(group, nodes=((4, 4),))
    setting = Setting(limits=model_limits(tool.architecture), group=group, library="vllm", quantised_on_load=False)
    assert broken_rule(_pool(), setting) is None
    name, message = broken_rule(_pool(**changes), setting)
    assert name == rule
    assert message
    assert rule in {known.name for known in RULES}


def test_kv_transfer_is_for_loops_of_ones_own():
    tool = standin.backend()
    sends = replace(_pool(), overlap=STOCK["kv-layers"])
    setting = Setting(
        limits=model_limits(tool.architecture), group=tool.groups[0], library="vllm", quantised_on_load=False
    )
    name, message = broken_rule(sends, setting)
    assert (name, "another pool" in message) == ("overlap", True)
    assert broken_rule(sends, replace(setting, library="torch")) is None


def test_a_replica_beyond_a_node_takes_whole_nodes():
    tool = standin.backend(fast=16)
    group = replace(tool.groups[0], nodes=((4, 4),))
    setting = Setting(
        limits=model_limits(tool.architecture), group=group, library="vllm", quantised_on_load=False, whole_nodes=True
    )
    assert broken_rule(_pool(tp=2, pp=4), setting) is None
    assert broken_rule(_pool(pp=3), setting) is None
    assert broken_rule(_pool(tp=2, pp=3), setting)[0] == "whole-nodes"
    assert broken_rule(_pool(tp=2, pp=3), replace(setting, whole_nodes=False)) is None


def test_quantisation_blocks_stay_whole():
    tool = standin.backend(fast=8)
    limits = replace(
        model_limits(tool.architecture), expert_widths=(1536,), expert_block=128, experts=(8,), heads=(64,)
    )
    setting = Setting(limits=limits, group=tool.groups[0], library="vllm", quantised_on_load=False)
    assert broken_rule(_pool(tp=4), setting) is None
    name, message = broken_rule(_pool(tp=8), setting)
    assert name == "quantisation-block"
    assert "128" in message


def test_pareto_equals_brute_force():
    tool = standin.backend(fast=2)
    question = standin.question(standin.workload(n=20, concurrency=6))
    front = pareto(question, "throughput-per-gpu", "tpot", backend=tool)
    _, runs = _all_runs(question, tool)
    points = {(objective_value("throughput-per-gpu", r.outcome), objective_value("tpot", r.outcome)) for r in runs}
    wanted = {p for p in points if not any(q != p and q[0] >= p[0] and q[1] <= p[1] for q in points)}
    assert {(point.a, point.b) for point in front.front} == wanted
    assert len(front.front) + len(front.others) == len(runs)


def test_capacity_brackets_the_rate():
    tool = standin.backend(fast=1)
    pool = _pool()
    chosen = Plan(model="toy", cluster="1xfast", pools=(pool,))
    work = standin.workload(n=30, outputs=8, rate=40.0)
    slo = Slo(ttft_s=0.06, attainment=0.9)
    found = capacity(chosen, work, slo, backend=tool, close=0.1)
    assert found.met_rate < found.missed_rate <= found.met_rate * 1.12
    spec = tool.compile(chosen, pool)
    assert meets(simulate_plan(tool, chosen, [spec], at_rate(work, found.met_rate), slo), slo)
    assert not meets(simulate_plan(tool, chosen, [spec], at_rate(work, found.missed_rate), slo), slo)
    with pytest.raises(InfeasibleError, match="slo"):
        capacity(chosen, standin.workload(n=3, outputs=4, rate=40.0), Slo(ttft_s=1e-4), backend=tool)
    with pytest.raises(InputError):
        capacity(chosen, standin.workload(n=4), SLO, backend=tool)
