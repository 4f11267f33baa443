"""Offload in the search: what does not fit becomes a plan, with what the library has."""

from dataclasses import replace

import numpy as np
import pytest

import simtool
from simtool.errors import InfeasibleError
from simtool.plan import ExpertOffload, Scheduler
from simtool.planners.question import Question, Space
from simtool.planners.space import plan_label
from simtool.workload import make_workload

WORKLOAD = make_workload(np.arange(4.0) * 3, np.full(4, 96, np.int32), np.full(4, 6, np.int32))
QUESTION = Question(
    model="mixtral-8x7b",
    devices="1xa100-40g",
    workload=replace(WORKLOAD, expert_routing="mixtral-8x7b,locality=0.5"),
    kernel_library="torch",
    scheduler=Scheduler(max_model_len=1024),
    space=Space(max_num_seqs=(4,), max_num_batched_tokens=(256,), offload_auto=True),
)


@pytest.fixture(scope="module")
def answer():
    return simtool.plan(QUESTION)


def test_what_does_not_fit_becomes_a_plan(answer):
    with pytest.raises(InfeasibleError, match="memory"):
        simtool.plan(replace(QUESTION, space=replace(QUESTION.space, offload_auto=False)))
    tried = {candidate.plan.pools[0].offload for candidate in answer.candidates}
    assert {offload.policy for offload in tried} == {"lru", "speculative", "static-cheaper"}
    assert len({offload.slots for offload in tried}) > 1
    assert answer.best.plan.pools[0].offload.policy == "static-cheaper"
    assert "static-cheaper,slots=" in plan_label(answer.best.plan)
    assert answer.result.offload.hit_rate > 0


def test_the_best_is_proven(answer):
    for candidate in answer.candidates:
        best = answer.best.objective
        assert candidate.bound <= best * (1 + 1e-9) if candidate.objective is None else candidate.objective <= best
        if candidate.objective is not None:
            assert candidate.objective <= candidate.bound * (1 + 1e-9)  # tokens/s: a bound is above
    assert answer.gap <= 1e-9
    low, high = answer.intervals["mean_tpot_ms"]
    assert low < answer.best.metrics["mean_tpot_ms"] < high


def test_engines_have_what_they_have():
    found = simtool.plan(replace(QUESTION, kernel_library="vllm"))
    assert {candidate.plan.pools[0].offload.policy for candidate in found.candidates} == {"zero-copy"}
    with pytest.raises(InfeasibleError, match="memory"):
        simtool.plan(replace(QUESTION, kernel_library="trtllm"))
    named = replace(QUESTION.space, offload=(ExpertOffload(policy="lru", slots=2),), offload_auto=False)
    with pytest.raises(InfeasibleError, match="vllm has no lru offload"):
        simtool.plan(replace(QUESTION, kernel_library="vllm", space=named))


def test_degrees_that_no_offload_has():
    space = replace(QUESTION.space, pp=(2,), offload=(ExpertOffload(policy="lru", slots=2),), offload_auto=False)
    with pytest.raises(InfeasibleError, match="without pp, dp and ep"):
        simtool.plan(replace(QUESTION, devices="2xa100-40g", space=space))
