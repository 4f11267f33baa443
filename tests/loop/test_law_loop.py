"""The whole loop on a device with a known law: calibrate, plan, execute, validate. It closes within 2%."""

import pytest

from simtool.calibration.calibrate import write_fit
from simtool.calibration.executor.job import make_job
from simtool.calibration.executor.prompts import prompt_ids
from simtool.calibration.executor.run_job import HostClock, run_job
from simtool.calibration.profiling.request import ProfileRequest
from simtool.calibration.profiling.session import profile_machine
from simtool.calibration.validation.reading import of_execution
from simtool.calibration.validation.validate import plan_for, validate
from simtool.hardware.own_profiles import profile_files
from simtool.plan import Plan, Pool, Scheduler
from tests.calibration.executor.fake_runner import greedy
from tests.calibration.executor.test_sequences import shared_workload
from tests.loop.law_device import LawBench, LawRunner

CLOSES = 0.02
METRICS = ("mean_ttft_ms", "mean_tpot_ms", "mean_e2el_ms", "output_throughput", "duration")
MODELS = ("examples/small-dense/config.json", "examples/small-moe/config.json")


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """The device calibrated as any is, from a thousand points."""
    folder = tmp_path_factory.mktemp("law")
    bench = LawBench(point_cost_s=0.1)
    request = ProfileRequest(device="cpu", budget_s=100.0, models=MODELS, tp=(1,), dtypes=("fp32",))
    measured = profile_machine(request, folder / "points.jsonl", bench=bench, now=bench.now)
    return write_fit(measured, folder, seed=0, tell=lambda text: None, command="a test")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rate", [4.0, float("inf")])
def test_the_loop_closes(profile, model, rate):
    scheduler = Scheduler(max_num_seqs=16, max_num_batched_tokens=256)
    plan = Plan(
        model=model,
        cluster="2xcpu",
        pools=(Pool(device="cpu", replicas=2, scheduler=scheduler),),
        kernel_library="torch",
        profiles=profile_files(profile),
    )
    workload = shared_workload(7, 40, rate=rate)
    job = make_job(plan, workload, device="cpu")
    runners = [LawRunner(job.architecture, spec.num_blocks, spec.block_size) for spec in job.engines]
    execution = run_job(job, runners, seed=5, clock=HostClock(read=lambda: 0.0), environment={})
    measurement = of_execution(execution, "law")
    found = validate(plan_for(measurement, None), measurement, workload)
    assert found.divergence == "", "the schedule is not the simulator's"
    assert found.overall.p95 <= CLOSES
    errors = {row.key: abs(row.error) for row in found.metrics if row.key in METRICS}
    assert set(errors) == set(METRICS)
    assert max(errors.values()) <= CLOSES, errors
    for request, tokens in enumerate(execution.tokens):
        prompt = prompt_ids(workload, request, job.architecture.vocab_size, 5)
        assert tokens.tolist() == greedy(prompt, int(workload.output_tokens[request]))
