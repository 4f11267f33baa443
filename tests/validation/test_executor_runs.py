"""What the executor leaves behind is replayed step for step, from memory and from its files."""

from dataclasses import replace

import numpy as np
import pytest

from simtool.calibration.executor.execution_file import save_execution
from simtool.calibration.executor.job import make_job
from simtool.calibration.executor.run_job import HostClock, run_job
from simtool.calibration.validation.reading import of_execution, read_measurement
from simtool.calibration.validation.validate import plan_for, validate
from simtool.errors import InputError
from simtool.files import output_folder
from simtool.plan import KvPolicy, Parallel
from tests.calibration.executor.fake_runner import FakeRunner
from tests.calibration.executor.test_run_job import plan
from tests.calibration.executor.test_sequences import shared_workload

KINDS = {
    "two replicas": {},
    "least outstanding": {"router": "least_outstanding"},
    "prefix caching": {"pool": {"kv": KvPolicy(num_gpu_blocks=60, prefix_caching=True)}},
    "prefill first": {"scheduling": "prefill_first"},
    "pipeline": {"pool": {"parallel": Parallel(pp=2), "replicas": 1}},
}


def ran(router="round_robin", pool=None, rate=400.0, **scheduler):
    """Steps whose time depends on their batch and on nothing that the tables know."""
    rng = np.random.default_rng(0)
    asked = plan(**scheduler)
    asked = replace(asked, router=router, pools=tuple(replace(one, **(pool or {})) for one in asked.pools))
    job = make_job(asked, shared_workload(3, 40, rate=rate), device="cpu", layers=4)

    def seconds_of(batches):
        return 1e-3 + 1e-4 * sum(len(batch.decodes) for batch in batches) + 1e-4 * rng.random()

    runners = [FakeRunner(spec.dp, spec.num_blocks, spec.block_size, seconds_of) for spec in job.engines]
    return run_job(job, runners, seed=5, clock=HostClock(read=lambda: 0.0), environment={"device": "none"})


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("rate", [400.0, float("inf")])
def test_the_schedule_is_the_recorded_one(kind, rate, tmp_path):
    execution = ran(rate=rate, **KINDS[kind])
    with output_folder(tmp_path / "run") as building:
        save_execution(execution, building)
    for measurement in (of_execution(execution, "run"), read_measurement(tmp_path / "run")):
        found = validate(plan_for(measurement, None), measurement, measurement.workload)
        assert found.divergence == ""
        told = found.attribution
        whole = told.measured_e2e_s - told.predicted_e2e_s
        assert sum(term.e2e_s for term in told.terms) == pytest.approx(whole, rel=1e-9)
        assert "not in the steps" not in [term.name for term in told.terms]


def damaged(execution, name, change):
    """The execution with one column of its requests or steps changed."""
    result = execution.result
    if name in result.steps:
        return replace(execution, result=replace(result, steps={**result.steps, name: change(result.steps[name])}))
    return replace(execution, result=replace(result, **{name: change(getattr(result, name))}))


def at(row, value):
    return lambda column: np.where(np.arange(len(column)) == row, value, column.astype(float))


DAMAGES = {
    "a step column too short": ("host_s", lambda column: column[:3], "different lengths"),
    "a folded step column": ("host_s", lambda column: np.stack([column, column]), "different lengths"),
    "a step of no replica": ("replica", lambda column: np.full(len(column), 7), "not of the plan's 2 replicas"),
    "a step without time": ("end_s", at(2, 0.0), "step 2 ends before it starts"),
    "a step at no time": ("start_s", at(2, np.nan), "step 2 has start_s = nan"),
    "a send at no time": ("sent_s", at(3, np.inf), "request 3 was sent at inf"),
    "a finish before the first token": ("finish_s", at(3, 1e-9), "request 3 finishes"),
    "nothing finished": ("finish_s", lambda column: np.full(len(column), np.nan), "completed no request"),
}


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_a_damaged_run_is_one_clear_error(name):
    column, change, told = DAMAGES[name]
    execution = ran()
    if column == "replica":
        steps = {**execution.result.steps, "replica": change(execution.result.steps["replica"])}
        broken = replace(execution, result=replace(execution.result, steps=steps))
    else:
        broken = damaged(execution, column, change)
    with pytest.raises(InputError, match=told):
        of_execution(broken, "run")


def test_another_plan_s_run_is_no_noise():
    one, other = (of_execution(ran(**KINDS[kind]), kind) for kind in ("two replicas", "prefill first"))
    with pytest.raises(InputError, match="no second run of two replicas: pools differ"):
        validate(plan_for(one, None), one, one.workload, again=other)


def pooled(plan, **changes):
    """The plan with its one pool changed."""
    return replace(plan, pools=tuple(replace(pool, **changes) for pool in plan.pools))


OTHERS = {
    "router": lambda plan: replace(plan, router="least_outstanding"),
    "weight dtype": lambda plan: replace(plan, weight_dtype="fp8"),
    "scheduler and KV policy": lambda plan: pooled(plan, scheduler=replace(plan.pools[0].scheduler, max_num_seqs=4)),
    "KV policy": lambda plan: pooled(plan, kv=replace(plan.pools[0].kv, block_size=32)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_run_is_not_judged_by_another_plan(what):
    run = of_execution(ran(), "run")
    with pytest.raises(InputError, match=f"another .*{what}"):
        plan_for(run, OTHERS[what](run.execution.plan))


def test_a_run_is_judged_by_the_plan_before_the_executor_changed_it():
    run = of_execution(ran(), "run")
    (pool,) = run.execution.plan.pools
    scheduler = replace(pool.scheduler, async_scheduling=True, cuda_graphs=True)
    asked = pooled(run.execution.plan, scheduler=scheduler, kv=replace(pool.kv, num_gpu_blocks=0))
    assert plan_for(run, asked) == run.execution.plan
