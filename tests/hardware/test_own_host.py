"""Host times of a profile replace the catalogue's; a CPU pays no launch, no gap and has no graphs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import simtool as st
from simtool.calibration.engine_times import with_host_times
from simtool.errors import InputError
from simtool.hardware.kernel_profile import ENGINE_TIMES, HostTime
from simtool.hardware.own_profiles import load_own_profiles, profile_files
from simtool.hardware.profile_file import read_profile
from simtool.planners.pareto import pareto
from simtool.simulator.host import load_host
from tests.hardware.own_profile import AXES, CPU_MACHINE, all_reduces, write_small

MODEL = str(Path(__file__).parents[2] / "examples" / "small-dense" / "config.json")
TIMES = [HostTime(name=n, seconds=1e-3 * (i + 1), spread=0.1, source="run 7") for i, n in enumerate(ENGINE_TIMES)]


def cpu_profile(path, **more):
    families = tuple(AXES)
    collectives = (all_reduces(1e-9, 2, "gloo"),)
    return write_small(
        path, device="cpu-x-1t", library="torch", families=families, dtype="fp32", machine=CPU_MACHINE,
        collectives=collectives, slower=2000.0, **more,
    )  # fmt: skip


def own(path):
    return load_own_profiles(profile_files(path))


def test_an_engines_times_replace_the_catalogues(tmp_path):
    path = with_host_times(write_small(tmp_path / "a.json", library="torch", launch_s=9e-6), TIMES, tmp_path / "b.json")
    host, usual = load_host("torch", own(path)), load_host("torch")
    assert (host.base_s, host.per_request_s, host.gap_s, host.request_latency_s) == (1e-3, 2e-3, 3e-3, 4e-3)
    assert host.eager_launch_s == 9e-6
    assert host.source.startswith(usual.source)
    assert f"; step: h200/torch/step_base (run 7) [{path}]" in host.source
    assert f"; launch: h200/torch/eager_launch [{path}]" in host.source
    assert load_host("vllm", own(path)) == load_host("vllm")


def test_each_time_is_the_first_profiles_that_has_it(tmp_path):
    first = with_host_times(write_small(tmp_path / "a.json", library="torch"), TIMES[:1], tmp_path / "b.json")
    later = with_host_times(first, [replace(time, seconds=9e-3) for time in TIMES], tmp_path / "c.json")
    host = load_host("torch", (*own(first), *own(later)))
    assert (host.base_s, host.gap_s) == (1e-3, 9e-3)


def test_only_the_rows_and_the_checksum_change(tmp_path):
    path = write_small(tmp_path / "a.json", library="torch", launch_s=9e-6)
    once = with_host_times(path, TIMES, tmp_path / "b.json.gz")
    twice = with_host_times(once, [replace(TIMES[0], seconds=7e-3)], tmp_path / "c.json")
    before, after = (json.loads(p.read_text()) for p in (path, twice))
    assert {k for k in before if before[k] != after[k]} == {"host", "checksum"}
    seconds = {time.name: time.seconds for time in read_profile(twice).host}
    assert seconds == {"eager_launch": 9e-6, **{t.name: t.seconds for t in TIMES}, "step_base": 7e-3}
    assert {time.source for time in read_profile(twice).host} == {"", "run 7"}
    assert with_host_times(path, TIMES, path) == path
    assert len(read_profile(path).host) == 5


def test_what_is_no_engine_time_is_refused(tmp_path):
    path = write_small(tmp_path / "a.json")
    for wrong, rule in (
        (replace(TIMES[0], name="eager_launch"), "no time of an engine"),
        (replace(TIMES[0], source=""), "fitted"),
    ):
        with pytest.raises(InputError, match=rule):
            with_host_times(path, [wrong], tmp_path / "b.json")
    for content in ("{}", "text"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(InputError, match=r"bad\.json"):
            with_host_times(tmp_path / "bad.json", TIMES, tmp_path / "b.json")
    with pytest.raises(InputError, match="cannot be read"):
        with_host_times(tmp_path / "none.json", TIMES, tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_a_cpu_pays_no_launch_and_no_gap(tmp_path):
    host = load_host("torch", own(cpu_profile(tmp_path / "a.json", launch_s=1e-3)))
    assert (host.eager_launch_s, host.gap_s) == (0.0, 0.0)
    assert "launch: in the kernels' own times on cpu" in host.source
    fitted = with_host_times(tmp_path / "a.json", TIMES, tmp_path / "b.json")
    assert load_host("torch", own(fitted)).gap_s == 3e-3


def cpu_plan(path, **scheduler):
    pool = st.Pool(device="cpu", scheduler=st.Scheduler(**scheduler))
    return st.Plan(model=MODEL, cluster="2xcpu", pools=(pool,), kernel_library="torch", profiles=st.profile_files(path))


def test_a_step_on_a_cpu_is_its_kernels_and_its_host(tmp_path):
    """No padding to a graph's size, no launch bound, no gap; the host's work is not hidden."""
    step = st.explain(cpu_plan(cpu_profile(tmp_path / "a.json", launch_s=1e-3)), "decode:5x100")
    assert (step.tokens, step.padded_tokens, step.launch_bound_s, step.gap_s) == (5, 5, 0.0, 0.0)
    assert step.seconds == pytest.approx(sum(row.seconds for row in step.rows) + step.host_s)
    assert step.host_s > 0


def test_graphs_and_overlap_change_nothing_on_a_cpu(tmp_path):
    path = cpu_profile(tmp_path / "a.json")
    rng = np.random.default_rng(0)
    workload = st.synthesise(num_requests=5, input_len=20, output_len=7, request_rate=50.0, rng=rng)
    asked, plain = (st.simulate(cpu_plan(path, cuda_graphs=on, async_scheduling=on), workload) for on in (True, False))
    assert np.array_equal(asked.finish_s, plain.finish_s)
    assert np.isnan(asked.energy_j)


def test_the_host_of_a_cpu_delays_every_step(tmp_path):
    path = cpu_profile(tmp_path / "a.json")
    slow = with_host_times(path, [replace(TIMES[0], seconds=0.5)], tmp_path / "b.json")
    workload = st.synthesise(num_requests=1, input_len=8, output_len=5, rng=np.random.default_rng(0))
    fast_s, slow_s = (st.simulate(cpu_plan(p), workload).finish_s[0] for p in (path, slow))
    base_s = load_host("torch").base_s
    assert slow_s - fast_s == pytest.approx(5 * (0.5 - base_s), rel=1e-6)


def test_memory_of_a_cpu_holds_no_graphs_and_is_shared(tmp_path):
    plan = cpu_plan(cpu_profile(tmp_path / "a.json"))
    workload = st.synthesise(num_requests=1, input_len=8, output_len=2, rng=np.random.default_rng(0))
    alone, shared = (st.simulate(replace(plan, cluster=text), workload).kv_blocks[0] for text in ("1xcpu", "2xcpu"))
    assert alone > 2 * shared > 0
    pool = replace(plan.pools[0], kv=st.KvPolicy(num_gpu_blocks=50))
    assert st.simulate(replace(plan, pools=(pool,)), workload).kv_blocks == (50,)


def test_the_search_takes_one_process_or_two(tmp_path):
    files = st.profile_files(cpu_profile(tmp_path / "a.json"))
    workload = st.synthesise(
        num_requests=6, input_len=20, output_len=7, request_rate=50.0, rng=np.random.default_rng(0)
    )
    space = st.Space(max_num_batched_tokens=(256, 512), max_num_seqs=(4, 16), pp=(1,))
    question = st.Question(
        model=MODEL,
        devices="2xcpu",
        workload=workload,
        objective="latency",
        space=space,
        kernel_library="torch",
        profiles=files,
    )
    answer = st.plan(question)
    degrees = {(c.plan.pools[0].parallel.tp, c.plan.pools[0].replicas) for c in answer.candidates}
    assert degrees == {(1, 1), (1, 2), (2, 1)}
    assert answer.gap == 0.0
    assert answer.best.plan.profiles == files
    low, high = answer.intervals["mean_e2el_ms"]
    assert low < answer.best.metrics["mean_e2el_ms"] < high
    for objective, rule in (("energy-per-token", "known power"), ("cost-per-token", "no public price")):
        with pytest.raises(InputError, match=rule):
            st.plan(replace(question, objective=objective))
    with pytest.raises(InputError, match="known power"):
        pareto(question, "latency", "energy-per-token")
