"""`simtool offload plan`: the fastest, the least memory, the page, and what is refused."""

import json
import re

import numpy as np
import pytest

from simtool.cli import run
from simtool.errors import InfeasibleError
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import zipf
from simtool.models.routing.trace_file import write_routing
from simtool.offload_planning import OffloadPlanQuestion, offload_problem, plan_curve, plan_memory
from simtool.offloading import OffloadQuestion, walk_policies
from simtool.offloads import parse_offload
from simtool.plan import ExpertOffload
from simtool.report.offload_plan_page import offload_plan_page
from tests.report.browser import own_text

SHAPE = MoeShape(layers=tuple(range(32)), num_experts=8, top_k=2)
WAYS = tuple(ExpertOffload(policy=name) for name in ("lru", "static-cpu"))


@pytest.fixture(scope="module")
def routing(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("routing") / "trace.npz"
    write_routing(sample_trace(zipf(SHAPE, 0.5, rng), sequences=2, output_tokens=30, rng=rng), path)
    return str(path)


@pytest.fixture(scope="module")
def question(routing):
    walked = OffloadQuestion(model="mixtral-8x7b", device="a100-40g", routing=routing, steps=20)
    return OffloadPlanQuestion(walked=walked, weight_dtypes=("auto", "int4"), batches=(1, 2), ways=WAYS)


@pytest.fixture(scope="module")
def curve(question):
    return plan_curve(question, (0.001, 0.5, 1.0))


def test_more_memory_is_no_slower_and_what_holds_nothing_is_left_out(curve):
    assert len(curve) == 2
    assert curve[0].best.tokens_per_s <= curve[1].best.tokens_per_s
    assert curve[0].bound_tokens_per_s <= curve[1].bound_tokens_per_s * (1 + 1e-8)
    assert all(one.best.tokens_per_s <= one.bound_tokens_per_s for one in curve)
    assert curve[1].best.choice.weight_dtype == "int4"  # of which the device holds all


def test_the_page_draws_the_curve_and_fetches_nothing(question, curve):
    text = offload_plan_page(question, curve[-1], curve[:-1])
    assert "Memory against speed" in text
    own = own_text(text)
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", own)
    assert not re.search("https?:/", own)


def test_a_plan_of_even_slots_is_walked_as_the_walk_command_does(question):
    """The same needs and prices: static-cpu with as many slots in each layer takes the same time."""
    problem = offload_problem(question)
    case = problem.cases[0]
    from simtool.planners.offload.trial import Choice, try_choice

    way = parse_offload("static-cpu")
    choice = Choice(weight_dtype="auto", batch=1, way=way, slots=(2,) * 32, staging=0)
    trial = try_choice(case, choice, 0.0)
    (walked,) = walk_policies(question.walked, [parse_offload("static-cpu,slots=2")])
    assert trial.tokens_per_s == pytest.approx(walked.tokens_per_s, rel=1e-12)
    assert trial.experts_bytes == pytest.approx(walked.hbm_bytes)
    assert case.fixed_bytes > walked.weights_bytes - walked.hbm_bytes > 0


def test_the_least_memory_holds_the_weights_that_are_no_experts(question):
    found = plan_memory(question, 10.0)
    assert found.best.tokens_per_s >= 10.0
    assert 1e9 < found.bound_bytes <= found.best.device_bytes < 40e9


def test_host_memory_that_holds_no_experts_is_told(question):
    from dataclasses import replace

    with pytest.raises(InfeasibleError, match="experts of mixtral-8x7b take"):
        offload_problem(replace(question, host_bytes=1e9))
    kept = offload_problem(replace(question, host_bytes=30e9))
    assert {case.weight_dtype for case in kept.cases} == {"int4"}


def test_the_command_answers_in_rows_and_json(capsys, routing, tmp_path):
    page = tmp_path / "page.html"
    ask = ["offload", "plan", "mixtral-8x7b", "--device", "a100-40g", "--routing", routing, "--steps", "20"]
    ask += ["--policy", "static-cpu", "--policy", "lru"]
    assert run([*ask, "--page", str(page)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "no configuration passes" in told.out
    assert "Memory against speed" in page.read_text(encoding="utf-8")
    assert run([*ask, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"]["output_throughput"] <= found["bound_output_throughput"]
    assert len(found["best"]["slots"]) == 32
    assert run([*ask, "--target-tok-s", "3", "--json"]) == 0
    least = json.loads(capsys.readouterr().out)
    assert least["bound_device_bytes"] <= least["best"]["device_bytes"]
    assert run([*ask, "--target-tok-s", "3"]) == 0
    assert "of GPU memory; not with less than" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "code", "word"),
    [
        (["--policy", "zero-copy"], 2, "is not planned"),
        (["--policy", "lru,slots=2"], 2, "which the plan is to choose"),
        (["--policy", "lru", "--policy", "lru"], 2, "twice"),
        (["--batch", "0"], 2, "from 1 to"),
        (["--batch", "x"], 2, "whole numbers"),
        (["--weight-dtype", "nonsense"], 2, "unknown weight dtype"),
        (["--max-step-ms", "-1"], 2, "at least 0"),
        (["--target-tok-s", "5", "--page", "p.html"], 2, "fastest configuration"),
        (["--hbm-gb", "nan"], 2, "at least 0"),
        (["--hbm-gb", "1"], 1, "memory"),
        (["--host-memory-gb", "1"], 1, "host-memory"),
        (["--policy", "lru", "--max-step-ms", "0.1"], 1, "latency"),
        (["--policy", "lru", "--target-tok-s", "1e6"], 1, "speed"),
    ],
)
def test_what_has_no_answer_is_one_error(capsys, routing, flags, code, word):
    ask = ["offload", "plan", "mixtral-8x7b", "--device", "a100-40g", "--routing", routing, "--steps", "20"]
    assert run([*ask, *flags]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("ERROR") == 1
    assert re.search(word, " ".join(told.err.split()))
