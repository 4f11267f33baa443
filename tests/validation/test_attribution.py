"""On a machine whose truth is known, validation finds it: schedule, steps, parts that add up, the host's terms."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hyp

from simtool.calibration.validation.gates import error_limit
from simtool.calibration.validation.held import hold
from simtool.calibration.validation.order import order_of
from simtool.calibration.validation.reading import of_execution
from simtool.calibration.validation.replay import divergence
from simtool.calibration.validation.validate import plan_for, validate
from simtool.errors import InputError
from simtool.report.validation_rows import order_words
from simtool.traces import Sessions, synthesise, with_warmup
from tests.validation.executions import Truth, execute, small_plan, small_workload

TRUTH = Truth(factors={"gemm": 1.3, "attention_decode": 0.5}, host_s=3e-3, per_request_s=1e-4)
LOADS = {
    "at once": small_workload(24),
    "arrivals": small_workload(24, rate=40.0),
    "closed loop": small_workload(24, concurrency=4),
}


def validated(execution, **more):
    return validate(execution.plan, of_execution(execution, "run"), execution.workload, **more)


@pytest.fixture(scope="module", params=sorted(LOADS))
def run(request):
    execution = execute(TRUTH, workload=LOADS[request.param])
    return request.param, execution, validated(execution)


def test_the_schedule_is_the_recorded_one(run):
    _, _, found = run
    assert found.divergence == ""
    assert found.gates[0].name == "schedule identical"
    assert found.gates[0].passed


def test_each_family_is_off_by_its_factor(run):
    _, execution, found = run
    for family, (measured, priced) in found.steps.families.items():
        used = priced > 0
        assert np.allclose(measured[used] / priced[used], TRUTH.factors.get(family, 1.0), rtol=1e-6), family
    assert np.array_equal(found.steps.host_s, execution.result.steps["host_s"])


def test_the_parts_add_up_to_the_whole(run):
    load, execution, found = run
    told = found.attribution
    parts = {term.name: term for term in told.terms}
    e2e_s = np.nanmean(execution.result.finish_s - execution.result.sent_s)
    assert told.measured_e2e_s == pytest.approx(e2e_s, rel=1e-12)
    whole = told.measured_e2e_s - told.predicted_e2e_s
    assert sum(term.e2e_s for term in told.terms) == pytest.approx(whole, rel=1e-9)
    whole = told.measured_duration_s - told.predicted_duration_s
    assert sum(term.duration_s for term in told.terms) == pytest.approx(whole, rel=1e-9)
    assert parts["gemm"].e2e_s > 0 > parts["attention_decode"].e2e_s
    assert parts["host"].e2e_s > 0
    for name in ("elementwise", "sampling", "between steps", "launches and rest"):
        assert abs(parts[name].e2e_s) < 1e-9
    if load == "at once":
        assert abs(parts["another schedule"].e2e_s) < 1e-9, "the same requests are in every step, whatever it takes"
        gemm = found.steps.families["gemm"]
        assert parts["gemm"].duration_s == pytest.approx(float((gemm[0] - gemm[1]).sum()), rel=1e-9)


def test_a_held_schedule_with_its_own_times_is_the_record(run):
    _, execution, _ = run
    held = hold(execution, 0.02)
    whole = held.spans(held.measured_s, held.lag_s)
    result = execution.result
    assert whole.e2e_s == pytest.approx(float(np.mean(result.finish_s - result.sent_s)), rel=1e-12)
    assert whole.duration_s == pytest.approx(float(result.finish_s.max() - result.sent_s.min()), rel=1e-12)


def test_a_run_as_priced_has_no_error():
    plan = small_plan(async_scheduling=True)
    execution = execute(Truth(host_s=0.0, timed=False), plan=plan)
    steps = execution.result.steps
    priced = validated(execution).steps.priced_s
    end = steps["start_s"][0] + np.cumsum(priced)
    moved = dict(zip(steps["end_s"].tolist(), end.tolist(), strict=True))
    finish_s, first_s = (
        np.array([moved[value] for value in column.tolist()])
        for column in (execution.result.finish_s, execution.result.first_token_s)
    )
    times = {"start_s": end - priced, "end_s": end}
    exact = replace(execution.result, steps={**steps, **times}, finish_s=finish_s, first_token_s=first_s)
    found = validated(replace(execution, result=exact))
    assert found.overall.median < 1e-9
    assert found.overall.inside == 1.0


def test_without_operators_or_host_the_step_is_one_part():
    found = validated(execute(replace(TRUTH, timed=False)))
    assert [term.name for term in found.attribution.terms] == ["steps", "between steps", "another schedule"]
    assert found.steps.families == {}


def test_steps_that_were_not_timed_take_the_ratio_of_those_that_were():
    execution = execute(TRUTH, workload=LOADS["at once"])
    steps = dict(execution.result.steps)
    for name in [name for name in steps if name.endswith("_s") and name not in ("start_s", "end_s", "host_s")]:
        steps[name] = steps[name].copy()
        steps[name][1::2] = 0.0
    found = validated(replace(execution, result=replace(execution.result, steps=steps)))
    measured, priced = found.steps.families["gemm"]
    assert np.allclose(measured / priced, 1.3, rtol=1e-6)


def test_time_between_steps_is_told_apart():
    execution = execute(TRUTH, workload=LOADS["at once"])
    steps, late = dict(execution.result.steps), 5e-4
    delay = late * np.arange(1, len(steps["start_s"]) + 1)
    moved = {**steps, "start_s": steps["start_s"] + delay, "end_s": steps["end_s"] + delay}
    shift = dict(zip(np.round(steps["end_s"], 9).tolist(), delay.tolist(), strict=True))
    finish_s = execution.result.finish_s + [shift[value] for value in np.round(execution.result.finish_s, 9).tolist()]
    found = validated(replace(execution, result=replace(execution.result, steps=moved, finish_s=finish_s)))
    between = next(term for term in found.attribution.terms if term.name == "between steps")
    assert between.measured_s == pytest.approx(delay[-1], rel=1e-6)
    assert between.duration_s == pytest.approx(delay[-1], rel=1e-6)


@pytest.mark.parametrize("name", ["prefill_tokens", "kv_blocks", "waiting", "running"])
def test_a_tampered_schedule_diverges_at_the_step(name):
    execution = execute(TRUTH, workload=LOADS["arrivals"])
    steps = dict(execution.result.steps)
    steps[name] = steps[name].copy()
    steps[name][7] += 1
    if name == "prefill_tokens":  # of as many tokens, else the record contradicts its own schedule
        steps["decode_requests"] = steps["decode_requests"] - (np.arange(len(steps[name])) == 7)
    found = validated(replace(execution, result=replace(execution.result, steps=steps)))
    assert found.divergence.startswith("step 7 of replica 0: recorded ")
    assert name in found.divergence
    assert not found.gates[0].passed


def test_a_record_with_a_step_too_few_diverges():
    steps = execute(TRUTH, workload=LOADS["at once"]).result.steps
    short = {name: column[:-3] for name, column in steps.items()}
    assert divergence(steps, steps) == ""
    assert (
        divergence(short, steps)
        == f"replica 0: {len(short['start_s'])} steps recorded, {len(steps['start_s'])} simulated"
    )


def test_the_host_is_found_on_half_and_helps_the_other_half():
    fit = validated(execute(TRUTH, workload=small_workload(60, rate=40.0)), calibrate=True).host_fit
    assert fit.base_s == pytest.approx(3e-3, rel=1e-6)
    assert fit.per_request_s == pytest.approx(1e-4, rel=1e-6)
    assert fit.gap_s < 1e-6, "kernels that are off are not the host's fault where they were timed"
    assert fit.after.median < fit.before.median
    untimed = Truth(host_s=2e-3, per_request_s=1e-4, timed=False)
    fit = validated(execute(untimed, workload=small_workload(60, rate=40.0)), calibrate=True).host_fit
    assert fit.base_s == pytest.approx(2e-3, rel=1e-3)
    assert fit.per_request_s == pytest.approx(1e-4, rel=1e-2)
    assert fit.after.median < 1e-6


def test_a_second_run_tells_the_noise():
    loud = replace(TRUTH, jitter=0.05)
    one, two = (execute(replace(loud, seed=seed), workload=LOADS["arrivals"]) for seed in (1, 2))
    found = validated(one, again=of_execution(two, "again"))
    assert 0.01 < found.overall.noise < 0.2
    row = next(row for row in found.metrics if row.key == "mean_tpot_ms")
    assert 0 < row.noise < 0.05


@given(noise=hyp.floats(0, 1), floor=hyp.floats(0.01, 0.5))
def test_the_limit_is_the_floor_or_three_noises(noise, floor):
    assert error_limit(noise, floor) == max(floor, 3 * noise)
    assert error_limit(float("nan"), floor) == floor


@pytest.mark.parametrize("requests", [1, 2])
def test_tiny_runs_are_compared(requests):
    execution = execute(TRUTH, workload=small_workload(requests))
    found = validated(execution)
    assert found.divergence == ""
    whole = found.attribution.measured_e2e_s - found.attribution.predicted_e2e_s
    assert sum(term.e2e_s for term in found.attribution.terms) == pytest.approx(whole, rel=1e-9)
    with pytest.raises(InputError, match="needs 40 steps"):
        validate(execution.plan, of_execution(execution, "run"), execution.workload, calibrate=True)


def sessions():
    rng = np.random.default_rng(0)
    turns = Sessions(turns=3, think_s=0.05)
    return synthesise(
        num_requests=20, input_len="100", output_len="10", rng=rng, request_rate=20.0, sessions=turns
    )  # fmt: skip


@pytest.mark.parametrize("load", [with_warmup(small_workload(20, rate=50.0), requests=5), sessions()])
def test_warm_up_and_sessions_add_up_too(load):
    found = validated(execute(TRUTH, workload=load))
    assert found.divergence == ""
    told = found.attribution
    whole = told.measured_e2e_s - told.predicted_e2e_s
    assert sum(term.e2e_s for term in told.terms) == pytest.approx(whole, rel=1e-9)
    assert "not in the steps" not in [term.name for term in told.terms]


def test_replicas_are_replayed_each():
    pool = replace(small_plan().pools[0], replicas=2)
    plan = replace(small_plan(), cluster="2xh200", pools=(pool,))
    found = validated(execute(TRUTH, plan=plan, workload=LOADS["arrivals"]))
    assert found.divergence == ""
    assert set(found.steps.replica.tolist()) == {0, 1}
    told = found.attribution
    whole = told.measured_e2e_s - told.predicted_e2e_s
    assert sum(term.e2e_s for term in told.terms) == pytest.approx(whole, rel=1e-9)


def test_preemption_keeps_the_schedule():
    pool = replace(small_plan().pools[0], kv=replace(small_plan().pools[0].kv, num_gpu_blocks=60))
    plan = replace(small_plan(), pools=(replace(pool, scheduler=replace(pool.scheduler, max_model_len=512)),))
    execution = execute(TRUTH, plan=plan, workload=LOADS["at once"])
    assert execution.result.preemptions.sum() > 0
    assert validated(execution).divergence == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "llama-3.1-70b"}, "another model"),
        ({"pools": (replace(small_plan().pools[0], device="l4"),)}, "another device"),
        ({"pools": (replace(small_plan().pools[0], replicas=2),)}, "another replicas"),
    ],
)
def test_the_plan_of_another_run_is_refused(change, told):
    measurement = of_execution(execute(TRUTH, workload=small_workload(2)), "run")
    with pytest.raises(InputError, match=told):
        plan_for(measurement, replace(small_plan(), **change))


def test_another_workload_is_refused_with_the_first_request_that_differs():
    execution = execute(TRUTH, workload=LOADS["at once"])
    measurement = of_execution(execution, "run")
    other = replace(execution.workload, input_tokens=execution.workload.input_tokens + (np.arange(24) == 5))
    with pytest.raises(InputError, match="request 5 was measured with"):
        validate(execution.plan, measurement, other)
    with pytest.raises(InputError, match="measured 24 requests, and the workload has 3"):
        validate(execution.plan, measurement, small_workload(3))


@pytest.mark.parametrize("name", ["start_s", "end_s", "prefill_tokens"])
def test_a_nan_in_the_steps_is_one_error(name):
    execution = execute(TRUTH, workload=small_workload(3))
    steps = dict(execution.result.steps)
    steps[name] = steps[name].astype(float)
    steps[name][2] = np.nan
    with pytest.raises(InputError, match=f"step 2 has {name} = nan"):
        validated(replace(execution, result=replace(execution.result, steps=steps)))
    with pytest.raises(InputError, match="keeps no steps"):
        validated(replace(execution, result=replace(execution.result, steps={})))


def test_the_order_of_plans():
    names = ["a", "b", "c"]
    right = order_of(names, [10.0, 20.0, 30.0], [11.0, 19.0, 33.0], "output_throughput", 0.03)
    assert (right.top1, right.tau, right.clear_tau, right.clear_pairs) == (True, 1.0, 1.0, 3)
    wrong = order_of(names, [30.0, 20.0, 10.0], [11.0, 19.0, 33.0], "output_throughput", 0.03)
    assert (wrong.top1, wrong.tau, wrong.clear_tau) == (False, -1.0, -1.0)
    within = order_of(names, [30.0, 30.1, 10.0], [30.5, 30.0, 10.0], "output_throughput", 0.03)
    assert within.top1, "the plan chosen is as good as the best within the noise"
    assert within.clear_pairs == 2
    assert within.clear_tau == 1.0
    less = order_of(names, [1.0, 2.0, 3.0], [1.5, 2.5, 3.5], "mean_tpot_ms", 0.0)
    assert less.top1
    assert not less.greater_is_better


def words(predicted, measured, noise=0.0):
    names = [str(number) for number in range(len(predicted))]
    return order_words(order_of(names, predicted, measured, "output_throughput", noise))


def test_ties_and_single_pairs_have_words():
    assert words([1.0, 2.0], [1.0, 2.0]).endswith("Kendall's tau: 1.00 over one pair.")
    assert "1.00 over one pair, 1.00 over the one pair that differs by more than the noise of 3" in words(
        [1.0, 2.0], [1.0, 2.0], 0.03
    )
    assert "no pair differs by more than the noise" in words([1.0, 2.0, 3.0], [1.0, 1.001, 1.002], 0.03)
    assert "over all pairs, 1.00 over the 2 pairs that differ by more" in words([1.0, 2.0, 9.0], [1.0, 1.01, 9.0], 0.03)
    tied = words([2.0, 2.0], [1.0, 3.0])
    assert "tells no plan from another" in tied
    assert "none, as all plans are predicted alike" in tied
    assert "measured alike" in words([1.0, 2.0], [3.0, 3.0])
    for text in (tied, words([1.0, 1.0], [1.0, 1.0]), words([0.0, 0.0], [0.0, 0.0], 0.1)):
        assert "nan" not in text
        assert "1 pairs" not in text


def test_of_plans_predicted_alike_the_worst_counts():
    assert not order_of(["a", "b"], [2.0, 2.0], [3.0, 1.0], "output_throughput", 0.0).top1
    assert not order_of(["b", "a"], [2.0, 2.0], [1.0, 3.0], "output_throughput", 0.0).top1
    assert order_of(["a", "b"], [2.0, 2.0], [3.0, 3.0], "output_throughput", 0.0).top1


@settings(max_examples=50)
@given(values=hyp.lists(hyp.floats(1, 100), min_size=2, max_size=6, unique=True))
def test_a_prediction_that_is_the_measurement_is_in_order(values):
    found = order_of([str(n) for n in range(len(values))], values, values, "output_throughput", 0.0)
    assert found.top1
    assert found.tau == pytest.approx(1.0)
    assert found.clear_tau == 1.0
