"""The least GPUs, dollars or joules *for a load*: a plan that falls behind it does not count."""

from __future__ import annotations

import numpy as np
import pytest

from simtool.errors import InfeasibleError
from simtool.planners.question import Objective, Question, Space
from simtool.planners.search import plan
from simtool.summaries import overload_wait_s
from simtool.traces import synthesise


def question(rate: float, objective: Objective) -> Question:
    workload = synthesise(
        num_requests=300, request_rate=rate, input_len="512", output_len="128", rng=np.random.default_rng(0)
    )
    space = Space(tp=(1,), pp=(1,), max_num_batched_tokens=(2048,))
    return Question(model="llama-3.1-8b", devices="4xl4", workload=workload, objective=objective, space=space)


@pytest.mark.parametrize("objective", ["gpus", "cost-per-token", "energy-per-token"])
def test_the_best_plan_keeps_up(objective: Objective) -> None:
    answer = plan(question(5.0, objective))
    assert answer.best.plan.devices > 1
    assert overload_wait_s(answer.result.sent_s, answer.result.scheduled_s) == 0.0
    left_behind = [c for c in answer.candidates if c.plan.devices == 1 and c.status == "simulated"]
    assert all(c.reason == "does not keep up with the load" for c in left_behind)


def test_throughput_needs_not_keep_up() -> None:
    assert plan(question(5.0, "throughput-per-dollar")).best.plan.devices == 1


def test_nothing_keeps_up() -> None:
    with pytest.raises(InfeasibleError, match="keeps up with"):
        plan(question(100.0, "gpus"))


def test_waiting_that_does_not_grow_is_no_overload() -> None:
    sent_s = np.arange(100.0)
    assert overload_wait_s(sent_s, sent_s + 5.0) == 0.0
    assert overload_wait_s(sent_s, sent_s * 1.5) == pytest.approx(47.25, rel=0.02)
    assert overload_wait_s(np.zeros(100), np.arange(100.0)) == 0.0
