"""`simtool validate` from end to end: our own runs, other tools' files, several plans, and every way to go wrong."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from simtool.calibration.executor.execution_file import save_execution
from simtool.cli import run
from simtool.cli_validate import join_words
from simtool.files import output_folder
from simtool.plan_file import plan_json
from tests.hardware.own_profile import write_small
from tests.shared_data import SHARED, needs_shared
from tests.validation import results
from tests.validation.executions import Truth, execute, small_plan, small_workload

PLAN = ["--model", "llama-3.1-8b", "--devices", "1xh200"]


def saved(folder, truth, plan=None):
    execution = execute(truth, plan=plan, workload=small_workload(20, rate=40.0))
    with output_folder(folder) as building:
        save_execution(execution, building)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    home = tmp_path_factory.mktemp("runs")
    narrow = replace(small_plan().pools[0], scheduler=replace(small_plan().pools[0].scheduler, max_num_seqs=2))
    return {
        "a": saved(home / "a", Truth(host_s=2e-3, per_request_s=1e-5, jitter=0.02, seed=1)),
        "b": saved(home / "b", Truth(host_s=2e-3, per_request_s=1e-5, jitter=0.02, seed=2)),
        "narrow": saved(home / "narrow", Truth(host_s=2e-3), plan=replace(small_plan(), pools=(narrow,))),
    }


def told(capsys, *arguments, code=0):
    assert run(["validate", *map(str, arguments)]) == code
    return capsys.readouterr()


def failed(capsys, *arguments):
    return told(capsys, *arguments, code=2).err


def test_an_execution_is_validated_and_drawn(capsys, runs, tmp_path):
    out = tmp_path / "out"
    said = told(capsys, "--measured", runs["a"], "--again", runs["b"], "--calibrate", "--out", out).out
    for part in ("mean TPOT", "90% interval", "median error", "another schedule", "Host fitted on the first half"):
        assert part in said
    assert sorted(path.name for path in out.iterdir()) == ["validation.html", "validation.json"]
    found = json.loads((out / "validation.json").read_text())
    assert found["schedule_identical"] is True
    assert len(found["columns"]["measured_s"]) == found["steps"][0]["steps"]
    assert found["metrics"]["mean_tpot_ms"]["noise"] > 0


def test_json_is_one_object_whose_parts_add_up(capsys, runs):
    found = json.loads(told(capsys, "--measured", runs["a"], "--json").out)
    whole = found["attribution"]
    parts = sum(term["e2e_s"] for term in whole["terms"])
    assert parts == pytest.approx(whole["measured_e2e_s"] - whole["predicted_e2e_s"], rel=1e-9)
    assert found["tool"] == "simtool execute"
    assert found["metrics"]["mean_e2el_ms"]["interval"][0] <= found["metrics"]["mean_e2el_ms"]["predicted"]


def test_the_plan_file_of_the_run_may_be_given(capsys, runs):
    told(capsys, runs["a"] / "plan.json", "--measured", runs["a"], "--json")
    assert "another model" in failed(capsys, other_plan(runs), "--measured", runs["a"])
    assert "states the plan that it ran" in failed(capsys, *PLAN, "--measured", runs["a"])


def other_plan(runs):
    path = runs["a"].parent / "other.json"
    document = json.loads((runs["a"] / "plan.json").read_text())
    path.write_text(json.dumps(document | {"model": "qwen3-8b"}))
    return path


def test_a_gate_decides_the_exit_code(capsys, runs):
    told(capsys, "--measured", runs["a"], "--gate", "60%")
    told(capsys, "--measured", runs["a"], "--gate", "0.1%", code=1)
    assert "is no share" in failed(capsys, "--measured", runs["a"], "--gate", "much")


def test_a_tampered_run_exits_with_1(capsys, runs, tmp_path):
    from simtool.calibration.executor.execution_file import load_execution

    execution = load_execution(runs["a"])
    steps = dict(execution.result.steps) | {"kv_blocks": execution.result.steps["kv_blocks"] + np.eye(1, 900)[0, :1]}
    with output_folder(tmp_path / "run") as building:
        save_execution(replace(execution, result=replace(execution.result, steps=steps)), building)
    assert "The schedule diverges at step 0" in told(capsys, "--measured", tmp_path / "run", code=1).out
    ordered = told(capsys, "--plans", "--measured", tmp_path / "run", "--measured", runs["narrow"], code=1)
    assert "step 0" in ordered.err


def test_a_gate_holds_for_several_plans_too(capsys, runs):
    listed = ["--plans", "--measured", runs["a"], "--measured", runs["narrow"]]
    told(capsys, *listed, "--gate", "900%")
    told(capsys, *listed, "--gate", "0%", code=1)


@pytest.mark.parametrize("as_words", [True, False])
def test_the_order_of_plans(capsys, runs, tmp_path, as_words):
    plans = [runs[name] / "plan.json" for name in ("a", "narrow")]
    measured = ["--measured", runs["a"], *([] if as_words else ["--measured"]), runs["narrow"]]
    out = tmp_path / "out"
    said = told(capsys, "--plans", *plans, *measured, "--objective", "mean_e2el_ms", "--noise", "3%", "--out", out).out
    assert "The best plan is predicted" in said
    assert "Kendall's tau: 1.00" in said
    order = json.loads((out / "validation.json").read_text())["order"]
    assert order["top1"] is True
    assert order["names"] == ["a/plan.json", "narrow/plan.json"]
    assert (out / "validation.html").read_text().startswith("<!doctype html>")


def test_words_after_measured_belong_to_it():
    words = ["validate", "--plans", "p", "q", "--measured", "a", "b", "--json"]
    assert join_words(words) == ["validate", "--plans", "p", "q", "--measured", "a", "--measured", "b", "--json"]
    assert join_words(["validate", "--measured", "a", "p"]) == ["validate", "--measured", "a", "p"]
    assert join_words([]) == []


def test_fitted_host_times_land_in_the_own_profile(capsys, runs, tmp_path):
    write_small(tmp_path / "own.json")
    asked = ["--measured", runs["a"], "--json", "--profile"]
    before = told(capsys, *asked, tmp_path / "own.json", "--calibrate", "--out", tmp_path / "out")
    assert "profile with these host times: own.json" in before.err
    fitted = json.loads(before.out)["host_fit"]
    profile = json.loads((tmp_path / "out" / "own.json").read_text())
    kept = {row["name"]: row["seconds"] for row in profile["host"]}
    assert kept["step_base"] == pytest.approx(fitted["base_s"], rel=1e-3)
    after = json.loads(told(capsys, *asked, tmp_path / "out" / "own.json").out)
    assert after["steps"][0]["median"] < json.loads(before.out)["steps"][0]["median"]


def test_each_of_several_plans_gets_a_fitted_profile_of_its_own(capsys, runs, tmp_path):
    write_small(tmp_path / "own.json")
    asked = ["--plans", "--measured", runs["a"], runs["narrow"], "--profile", tmp_path / "own.json"]
    said = told(capsys, *asked, "--calibrate", "--out", tmp_path / "out")
    kept = [json.loads((tmp_path / "out" / f"own-{number}.json").read_text())["host"] for number in (1, 2)]
    assert kept[0] != kept[1]
    assert "plan 2: own-2.json" in said.err
    assert said.out.count("Host fitted on the first half") == 2
    assert (tmp_path / "out" / "validation.html").read_text().count("Host fitted on the first half") == 2


def test_a_profile_s_name_does_not_cover_what_was_found(capsys, runs, tmp_path):
    write_small(tmp_path / "validation.json")
    asked = ["--measured", runs["a"], "--profile", tmp_path / "validation.json", "--calibrate"]
    told(capsys, *asked, "--out", tmp_path / "out")
    assert "host" in json.loads((tmp_path / "out" / "validation-profile.json").read_text())
    assert "verdict" in json.loads((tmp_path / "out" / "validation.json").read_text())


def test_a_fit_that_does_not_help_is_told(capsys, runs, tmp_path):
    from simtool.calibration.executor.execution_file import load_execution

    execution = load_execution(runs["a"])
    steps = dict(execution.result.steps)  # a host that idles in the second half is not the one of the first
    half = len(steps["host_s"]) // 2
    steps["host_s"] = np.where(np.arange(len(steps["host_s"])) < half, 9e-3, 0.0)
    with output_folder(tmp_path / "run") as building:
        save_execution(replace(execution, result=replace(execution.result, steps=steps)), building)
    said = told(capsys, "--measured", tmp_path / "run", "--calibrate", "--out", tmp_path / "out").out
    assert "The fit does not help" in said
    page = (tmp_path / "out" / "validation.html").read_text()
    assert 'class="problem">The fit does not help' in page
    assert json.loads((tmp_path / "out" / "validation.json").read_text())["host_fit"]["helps"] is False
    assert "does not help" not in told(capsys, "--measured", runs["a"], "--calibrate").out


def test_plans_and_measurements_must_pair(capsys, runs):
    assert "needs two plans" in failed(capsys, "--plans", "--measured", runs["a"])
    assert "--plans compares several" in failed(capsys, "--measured", runs["a"], "--measured", runs["b"])
    plans = [runs["a"] / "plan.json"] * 3
    assert "has 2 entries for 3 plans" in failed(capsys, "--plans", *plans, "--measured", runs["a"], runs["b"])
    both = ["--measured", runs["a"], runs["narrow"]]
    assert "is not known of both sides" in failed(capsys, "--plans", *both, "--objective", "nonsense")


def test_another_tool_s_file_is_validated_with_its_own_workload(capsys, tmp_path):
    path = results.write(tmp_path / "result.json", results.vllm())
    found = json.loads(told(capsys, *PLAN, "--measured", path, "--json", "--out", tmp_path / "out").out)
    assert found["tool"] == "vllm bench serve"
    assert found["attribution"] is None
    assert found["schedule_identical"] is None
    assert found["metrics"]["mean_ttft_ms"]["measured"] == 63.3
    assert "Timelines" in (tmp_path / "out" / "validation.html").read_text()


def test_metrics_alone_need_the_workload_by_flags(capsys, tmp_path):
    path = results.write(tmp_path / "report.json", results.trtllm())
    load = ["--num-prompts", "3", "--input-len", "130", "--output-len", "3"]
    said = told(capsys, *PLAN, *load, "--measured", path)
    assert "output tokens" in said.out
    assert "states no requests" in said.err
    assert "all requests at once" in said.err
    assert "all requests at once" not in told(capsys, *PLAN, *load, "--max-concurrency", "2", "--measured", path).err
    other = told(capsys, *PLAN, "--num-prompts", "5", *load[2:], "--measured", path).err
    assert "3 requests were completed when measured and 5 in the prediction" in other


def test_metrics_alone_have_no_default_workload(capsys, tmp_path):
    report = results.write(tmp_path / "report.json", results.trtllm())
    plain = {key: value for key, value in results.vllm().items() if not isinstance(value, list)}
    plain = results.write(tmp_path / "plain.json", plain)
    plans = []
    for sequences in (8, 16):
        plans.append(tmp_path / f"{sequences}.json")
        plans[-1].write_text(plan_json(small_plan(max_num_seqs=sequences)))
    for path in (report, plain):
        said = failed(capsys, *PLAN, "--measured", path)
        assert (
            "has metrics alone of its 3 requests, and --num-prompts, --input-len, --output-len would be a guess" in said
        )
        assert "has metrics alone" in failed(capsys, "--plans", *plans, "--measured", path, path)
    assert "--output-len would be a guess" in failed(
        capsys, *PLAN, "--num-prompts", "3", "--input-len", "130", "--measured", plain
    )


def test_requests_without_send_times_need_a_load(capsys, tmp_path):
    path = results.write(tmp_path / "out.jsonl", results.sglang(request_rate="trace", max_concurrency=None))
    assert "does not say how its requests came" in failed(capsys, *PLAN, "--measured", path)
    told(capsys, *PLAN, "--max-concurrency", "0", "--measured", path)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--on", "cpu"], "--on: is for a run here"),
        (["--layers", "2"], "--layers: is for a run here"),
        (["--num-prompts", "5"], "workload.num_prompts"),
        (["--request-rate", "5"], "workload.request_rate"),
        (["--max-num-seqs", "5"], "engine.max_num_seqs"),
        (["--objective", "mean_tpot_ms"], "--objective: is of --plans alone"),
        (["--noise", "3%"], "--noise: is of --plans alone"),
    ],
)
def test_flags_that_would_do_nothing_beside_a_run_are_refused(capsys, runs, words, why):
    assert why in failed(capsys, "--measured", runs["a"], *words)


def test_flags_that_would_do_nothing_beside_a_file_are_refused(capsys, runs, tmp_path):
    path = results.write(tmp_path / "result.json", results.vllm())
    said = failed(capsys, *PLAN, "--measured", path, "--num-prompts", "3")
    assert "workload.num_prompts: would do nothing" in said
    assert "workload.think_s" in failed(capsys, *PLAN, "--measured", path, "--request-rate", "3", "--think-time", "2")
    told(capsys, *PLAN, "--measured", path, "--request-rate", "3", "--burstiness", "2", "--seed", "4")
    plan = runs["a"] / "plan.json"
    assert "states it" in failed(capsys, plan, "--measured", path, "--devices", "1xl4")


def test_one_run_has_no_second(capsys, runs, tmp_path):
    path = results.write(tmp_path / "result.json", results.vllm())
    assert "holds one run" in failed(capsys, *PLAN, "--measured", f"{path}#2")
    assert "the first one is #1" in failed(capsys, *PLAN, "--measured", f"{path}#0")
    assert "holds one run" in failed(capsys, "--measured", f"{runs['a']}#2")
    told(capsys, *PLAN, "--measured", f"{path}#1")


def test_flags_may_say_how_the_requests_came(capsys, tmp_path):
    path = results.write(tmp_path / "out.jsonl", results.sglang(request_rate="trace", max_concurrency=None))
    found = json.loads(told(capsys, *PLAN, "--max-concurrency", "1", "--measured", path, "--json").out)
    assert found["metrics"]["mean_ttft_ms"]["predicted"] > 0
    assert "measured 3 requests, and the workload has 5" in failed(
        capsys, *PLAN, "--num-prompts", "5", "--request-rate", "1", "--measured", path
    )


def test_what_cannot_be_validated_is_told(capsys, runs, tmp_path):
    path = results.write(tmp_path / "result.json", results.vllm())
    assert "does not say which plan it measured" in failed(capsys, "--measured", path)
    assert "needs steps" in failed(capsys, *PLAN, "--measured", path, "--calibrate")
    assert "holds no measured run" in failed(capsys, "--measured", tmp_path)
    assert "cannot be read" in failed(capsys, "--measured", tmp_path / "absent")
    assert "refuses every request" in failed(capsys, *PLAN, "--num-gpu-blocks-override", "2", "--measured", path)
    (runs["a"].parent / "broken").mkdir(exist_ok=True)
    (runs["a"].parent / "broken" / "execution.json").write_text('{"simtool_execution": 1')
    assert "is not JSON" in failed(capsys, "--measured", runs["a"].parent / "broken")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(capsys, runs, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot be written" in failed(capsys, "--measured", runs["a"], "--out", tmp_path / "closed" / "out")


def test_an_output_that_is_a_file_is_told(capsys, runs, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in failed(capsys, "--measured", runs["a"], "--out", tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == ""


@needs_shared
@pytest.mark.parametrize(
    ("name", "device", "most"), [("RTX4090", "rtx-4090", 0.10), ("RTXPRO6000", "rtx-pro-6000", 0.05)]
)
def test_the_published_runs_of_vllm_are_predicted(capsys, name, device, most):
    folder = SHARED / "data" / "llmservingsim" / "bench" / "examples" / name / "Llama-3.1-8B"
    asked = ["--model", "llama-3.1-8b", "--devices", f"1x{device}"]
    found = json.loads(told(capsys, *asked, "--measured", folder, "--json").out)
    for key in ("mean_ttft_ms", "mean_tpot_ms", "mean_e2el_ms"):
        assert abs(found["metrics"][key]["error"]) < most, key
