"""run_job on a made-up device: what comes back is the simulator's own result where steps take what it says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from simtool.calibration.executor.execution import inter_token_s
from simtool.calibration.executor.execution_file import load_execution, save_execution
from simtool.calibration.executor.job import make_job
from simtool.calibration.executor.run_job import HostClock, run_job
from simtool.calibration.executor.settings import RunSettings
from simtool.errors import InputError
from simtool.files import output_folder
from simtool.plan import KvPolicy, Plan, Pool, Scheduler
from simtool.run import engines_of
from simtool.simulator.run import simulate_engines
from simtool.traces import synthesise, with_samples
from tests.calibration.executor.fake_runner import FakeRunner
from tests.calibration.executor.test_sequences import shared_workload


def plan(**scheduler):
    knobs = Scheduler(max_num_seqs=8, max_num_batched_tokens=64, **scheduler)
    pool = Pool(device="h200", scheduler=knobs, kv=KvPolicy(num_gpu_blocks=60), replicas=2)
    return Plan(model="llama-3.1-8b", cluster="2xh200", pools=(pool,), kernel_library="torch")


def executed(workload, **scheduler):
    job = make_job(plan(**scheduler), workload, device="cpu", layers=4)
    runners = [FakeRunner(spec.dp, spec.num_blocks, spec.block_size) for spec in job.engines]
    return job, run_job(job, runners, seed=5, clock=HostClock(read=lambda: 0.0), environment={"device": "none"})


def test_what_cannot_run_is_changed_and_said():
    job, execution = executed(shared_workload(1, 10, rate=100.0))
    assert not job.plan.pools[0].scheduler.async_scheduling
    assert not job.plan.pools[0].scheduler.cuda_graphs
    assert [note.partition(":")[0] for note in execution.notes[:2]] == ["async scheduling off", "CUDA graphs off"]
    assert "4 of 32 layers" in execution.notes[2]
    assert execution.layers == 4


def test_a_cache_that_is_not_kept_as_asked_is_said_and_priced_as_it_is():
    asked = plan()
    fp8 = replace(asked, pools=(replace(asked.pools[0], kv=KvPolicy(num_gpu_blocks=60, dtype="fp8")),))
    job = make_job(fp8, shared_workload(1, 10, rate=100.0), device="cpu")
    assert (job.plan.pools[0].kv.dtype, job.compute_dtype) == ("bf16", "bf16")
    assert any(note.startswith("KV cache in bf16, not fp8") for note in job.notes)
    assert not any("KV cache" in note for note in executed(shared_workload(1, 10, rate=100.0))[0].notes)


def test_static_batches_are_refused():
    with pytest.raises(InputError, match="static"):
        make_job(plan(scheduling="static"), shared_workload(1, 10, rate=100.0), device="cpu")


def test_more_devices_than_there_are_is_refused():
    big = Plan(model="llama-3.1-8b", cluster="1xh200", pools=plan().pools)
    with pytest.raises(InputError, match="2 x h200 and the cluster has 1"):
        make_job(big, shared_workload(1, 10, rate=100.0), device="cpu")


def test_blocks_are_no_more_than_the_workload_can_fill():
    workload = shared_workload(1, 10, rate=100.0)
    roomy = Plan(model="llama-3.1-8b", cluster="1xh200", pools=(Pool(device="h200"),), kernel_library="torch")
    job = make_job(roomy, workload, device="cpu")
    blocks = job.plan.pools[0].kv.num_gpu_blocks
    assert 16 * blocks >= (workload.input_tokens + workload.output_tokens).sum()
    assert blocks < 200


def test_schedule_and_steps_tell_the_same_story():
    _, execution = executed(shared_workload(3, 40, rate=400.0))
    steps, schedule = execution.result.steps, execution.schedule
    prefills = (schedule.new_tokens > 1) | (schedule.context < execution.workload.input_tokens[schedule.request])
    count = len(steps["start_s"])
    tokens = np.bincount(schedule.step, schedule.new_tokens, count)
    assert np.array_equal(tokens, steps["prefill_tokens"] + steps["decode_requests"])
    assert np.bincount(schedule.step[prefills], minlength=count).sum() >= 40
    assert schedule.samples.sum() == execution.workload.output_tokens.sum()
    assert [len(ids) for ids in execution.tokens] == execution.workload.output_tokens.tolist()


def test_the_simulator_s_prices_give_the_simulator_s_result():
    workload = shared_workload(4, 40, rate=50.0)
    job = make_job(plan(), workload, device="cpu", layers=4)

    engines = engines_of(job.plan, workload, layers=job.layers)
    simulated = simulate_engines(engines, workload, exact_steps=True, record_steps=True)
    durations = {
        replica: iter((simulated.steps["end_s"] - simulated.steps["start_s"])[simulated.steps["replica"] == replica])
        for replica in (0, 1)
    }
    runners = [
        FakeRunner(
            1, spec.num_blocks, spec.block_size, lambda batches, replica=replica: float(next(durations[replica]))
        )
        for replica, spec in enumerate(job.engines)
    ]
    execution = run_job(job, runners, seed=5, clock=HostClock(read=lambda: 0.0), environment={})
    for name in ("prefill_tokens", "decode_requests", "kv_blocks", "waiting", "running", "replica"):
        assert np.array_equal(execution.result.steps[name], simulated.steps[name]), name
    assert np.allclose(execution.result.finish_s, simulated.finish_s, rtol=1e-9)


@pytest.mark.parametrize("caching", [True, False])
def test_samples_of_a_prompt_share_its_blocks_where_prefixes_are_cached(caching):
    one = synthesise(num_requests=8, input_len=48, output_len=5, rng=np.random.default_rng(0), request_rate=20.0)
    pool = Pool(
        device="h200",
        scheduler=Scheduler(max_num_seqs=8, max_num_batched_tokens=64),
        kv=KvPolicy(num_gpu_blocks=40, prefix_caching=caching),
    )
    asked = Plan(model="llama-3.1-8b", cluster="1xh200", pools=(pool,), kernel_library="torch")
    job = make_job(asked, with_samples(one, 3), device="cpu", layers=4)
    runner = FakeRunner(1, job.engines[0].num_blocks, 16)
    run = run_job(job, [runner], seed=5, clock=HostClock(read=lambda: 0.0), environment={})
    cached = run.result.cached_tokens.reshape(8, 3)
    assert (cached[:, 0] == 0).all()
    assert (cached[:, 1:] == (32 if caching else 0)).all(), "all but the block whose last token has to be computed"
    assert all((tokens == run.tokens[3 * (place // 3)]).all() for place, tokens in enumerate(run.tokens))


def test_saved_and_loaded_it_is_the_same(tmp_path):
    _, execution = executed(shared_workload(5, 20, rate=100.0))
    with output_folder(tmp_path / "run") as building:
        save_execution(execution, building)
    loaded = load_execution(tmp_path / "run")
    assert loaded.plan == execution.plan
    assert loaded.notes == execution.notes
    assert np.array_equal(loaded.result.finish_s, execution.result.finish_s)
    assert all(np.array_equal(a, b) for a, b in zip(loaded.tokens, execution.tokens, strict=True))
    assert np.array_equal(loaded.schedule.context, execution.schedule.context)


def test_what_ran_is_kept_and_files_without_it_are_read(tmp_path):
    _, execution = executed(shared_workload(5, 8, rate=100.0))
    assert execution.settings is None, "run_job knows no request"
    ran = RunSettings(
        device="cpu",
        activation_dtype="fp32",
        weight_dtypes=("fp32",),
        kv_dtype="fp32",
        offload_experts=2,
        overlap=True,
        nano_batches=1,
        seed=7,
    )
    for settings in (None, ran):
        with output_folder(tmp_path / "run") as building:
            save_execution(replace(execution, settings=settings), building)
        assert load_execution(tmp_path / "run").settings == settings
    path = tmp_path / "run" / "execution.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    for settings in ({"seed": 7}, about["settings"] | {"seed": True}, [], about["settings"] | {"dtype": "x"}):
        path.write_text(json.dumps(about | {"settings": settings}), encoding="utf-8")
        with pytest.raises(InputError, match="setting"):
            load_execution(tmp_path / "run")
    del about["settings"]  # as earlier versions wrote it
    path.write_text(json.dumps(about), encoding="utf-8")
    assert load_execution(tmp_path / "run").settings is None


def test_gaps_between_tokens_are_the_request_s_own():
    _, execution = executed(shared_workload(3, 40, rate=400.0))
    gaps, result = inter_token_s(execution), execution.result
    assert [len(own) for own in gaps] == (execution.workload.output_tokens - 1).tolist()
    assert np.allclose([sum(own) for own in gaps], result.finish_s - result.first_token_s)


@pytest.mark.parametrize("name", ["execution.json", "schedule.npz", "requests.npz", "plan.json", "trace.jsonl"])
def test_a_damaged_part_is_named(tmp_path, name):
    _, execution = executed(shared_workload(5, 8, rate=100.0))
    with output_folder(tmp_path / "run") as building:
        save_execution(execution, building)
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=name.partition(".")[0]):
        load_execution(tmp_path / "run")
    path.unlink()
    with pytest.raises(InputError, match=name.partition(".")[0]):
        load_execution(tmp_path / "run")
