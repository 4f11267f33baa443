"""Before the run every rank has run a prompt and a decode, of which nothing is recorded."""

import pytest

torch = pytest.importorskip("torch", reason="the executor runs on torch")

from simtool.calibration.executor.execute import run_here  # noqa: E402
from simtool.calibration.executor.job import make_job  # noqa: E402
from simtool.calibration.executor.request import ExecuteRequest  # noqa: E402
from simtool.plan import KvPolicy, Parallel, Plan, Pool, Scheduler  # noqa: E402
from tests.calibration.executor.fake_runner import FakeRunner  # noqa: E402
from tests.calibration.executor.test_sequences import shared_workload  # noqa: E402


class Recorded(FakeRunner):
    steps: list

    def submit(self, lane, batches):
        self.steps.append(tuple(batches))
        super().submit(lane, batches)


@pytest.mark.parametrize("parallel", [Parallel(), Parallel(tp=2), Parallel(pp=2)], ids=["one", "tp", "pp"])
@pytest.mark.parametrize("budget", [16, 64])
def test_the_first_steps_are_not_of_the_run(parallel, budget):
    knobs = Scheduler(max_num_seqs=8, max_num_batched_tokens=budget)
    pool = Pool(device="h200", parallel=parallel, scheduler=knobs, kv=KvPolicy(num_gpu_blocks=60))
    plan = Plan(model="llama-3.1-8b", cluster="2xh200", pools=(pool,), kernel_library="torch")
    job = make_job(plan, shared_workload(1, 10, rate=100.0), device="cpu", layers=4)
    runner = Recorded(parallel.dp, 60, job.engines[0].block_size)
    runner.steps = []
    execution = run_here(
        job, ExecuteRequest(), device="cpu", environment={}, start=lambda arch, parallel, options: runner
    )
    (prompt,), (decode,) = runner.steps[:2]
    assert [slot.new for slot in prompt.prefills] == [min(budget, int(job.workload.input_tokens.max()))]
    assert [slot.context for slot in decode.decodes] == [prompt.tokens]
    distinct = {id(batch) for (batch,) in runner.steps}  # alone, a step that the machine spoilt is run again
    assert len(distinct) == len(execution.result.steps["start_s"]) + 2
    assert runner.closed
