"""The laws of docs/design.md on random engines and workloads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.metrics import Result
from simtool.plan import Scheduler
from simtool.simulator.engine import EngineSpec
from simtool.simulator.run import simulate_engines
from simtool.workload import Workload, make_workload
from tests.simulator.engines import law_engine
from tests.simulator.naive_engine import run_naive

SCENARIOS = settings(max_examples=200, deadline=None)
MODES = ("chunked", "no_chunking", "prefill_first", "static")


def random_workload(seed: int, requests: int, rate: float, concurrency: int = 0, longest: int = 300) -> Workload:
    rng = np.random.default_rng(seed)
    arrival_s = np.zeros(requests) if concurrency else np.cumsum(rng.exponential(1 / rate, requests))
    return make_workload(
        arrival_s,
        rng.integers(1, longest, requests).astype(np.int32),
        rng.integers(1, longest, requests).astype(np.int32),
        max_concurrency=concurrency,
    )


@st.composite
def engines(draw: st.DrawFn, modes: tuple[str, ...] = MODES) -> EngineSpec:
    mode = draw(st.sampled_from(modes))
    seqs = draw(st.sampled_from([1, 3, 8, 32]))
    tokens = draw(st.sampled_from([64, 200, 512])) if mode != "no_chunking" else 640
    knobs = Scheduler(scheduling=mode, max_num_seqs=seqs, max_num_batched_tokens=tokens)  # type: ignore[arg-type]
    return law_engine(
        num_blocks=draw(st.integers(40, 300)),
        block_size=draw(st.sampled_from([1, 8, 16])) * 16,
        scheduler=knobs,
        hidden=draw(st.booleans()),
        host_s=draw(st.sampled_from([0.0, 2e-4, 8e-3])),
        mixed=draw(st.sampled_from([1.0, 2.5])),
        gain=draw(st.sampled_from([0.0, 0.3])),
    )


workloads = st.builds(
    random_workload,
    seed=st.integers(0, 2**32 - 1),
    requests=st.integers(1, 60),
    rate=st.sampled_from([0.3, 2.0, 20.0, 1e6]),
    concurrency=st.sampled_from([0, 0, 0, 1, 5]),
)


def assert_same(a: Result, b: Result, tolerance: float) -> None:
    for name in ("sent_s", "scheduled_s", "first_token_s", "finish_s"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=tolerance, atol=1e-12)
    np.testing.assert_array_equal(a.preemptions, b.preemptions)
    np.testing.assert_allclose(a.energy_j, b.energy_j, rtol=1e-9)
    assert a.num_steps == b.num_steps


@SCENARIOS
@given(engine=engines(), workload=workloads, reserve=st.booleans())
def test_leap_equals_step(engine: EngineSpec, workload: Workload, reserve: bool) -> None:
    leap = simulate_engines([engine], workload, reserve_full_isl=reserve)
    step = simulate_engines([engine], workload, reserve_full_isl=reserve, exact_steps=True)
    assert_same(leap, step, 1e-9)
    assert leap.itl_counts.sum() == step.itl_counts.sum()


@SCENARIOS
@given(engine=engines(modes=("chunked",)), workload=workloads, reserve=st.booleans())
def test_equals_independent_engine(engine: EngineSpec, workload: Workload, reserve: bool) -> None:
    if workload.max_concurrency:
        return
    result = simulate_engines([engine], workload, reserve_full_isl=reserve)
    first_s, finish_s = run_naive(engine, workload, reserve)
    np.testing.assert_allclose(result.first_token_s, first_s, rtol=1e-9)
    np.testing.assert_allclose(result.finish_s, finish_s, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(engine=engines(), workload=workloads, pp=st.sampled_from([1, 2, 3]), dp=st.sampled_from([1, 2]))
def test_requests_finish_once_in_causal_order(engine: EngineSpec, workload: Workload, pp: int, dp: int) -> None:
    engine = law_engine(num_blocks=engine.num_blocks, scheduler=engine.scheduler, pp=pp, dp=dp)
    result = simulate_engines([engine, engine], workload, router="least_outstanding", record_steps=True)
    done = ~np.isnan(result.finish_s)
    assert done.all() or engine.scheduler.scheduling == "no_chunking"
    assert (result.sent_s <= result.scheduled_s)[done].all()
    assert (result.scheduled_s < result.first_token_s)[done].all()
    assert (result.first_token_s <= result.finish_s)[done].all()
    assert ((result.output_tokens == 1) == (result.first_token_s == result.finish_s))[done].all()
    assert result.itl_counts.sum() == (result.output_tokens - 1)[done].sum()
    assert (result.steps["kv_blocks"] <= 2 * dp * engine.num_blocks).all()
    assert (result.steps["end_s"] > result.steps["start_s"]).all()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pp=st.integers(2, 4),
    blocks=st.integers(40, 300),
    tokens=st.sampled_from([64, 512]),
    seqs=st.sampled_from([4, 16, 64]),
)
def test_pipelines_under_memory_pressure_end(seed: int, pp: int, blocks: int, tokens: int, seqs: int) -> None:
    """Preempted requests come back in other lanes, whose iteration counters run alike."""
    rng = np.random.default_rng(seed)
    room = blocks * 16 - 2
    prompt = np.clip(rng.lognormal(np.log(room / 8), 1.2, 60), 1, room - 300).astype(np.int32)
    output = rng.integers(1, min(300, room // 2), 60).astype(np.int32)
    workload = make_workload(np.cumsum(rng.exponential(0.02, 60)), prompt, output)
    knobs = Scheduler(max_num_seqs=seqs, max_num_batched_tokens=tokens)
    engine = law_engine(num_blocks=blocks, scheduler=knobs, pp=pp)
    limit = 4 * pp * int((prompt / tokens + output + 2).sum()) * (1 + 60)  # a run that never ends would pass it
    result = simulate_engines([engine], workload, record_steps=True)
    assert result.num_steps < limit
    assert not np.isnan(result.finish_s).any()


@settings(max_examples=40, deadline=None)
@given(engine=engines(), workload=workloads)
def test_same_seed_same_bytes(engine: EngineSpec, workload: Workload) -> None:
    a, b = simulate_engines([engine], workload), simulate_engines([engine], workload)
    for field in dataclasses.fields(Result):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert x.tobytes() == y.tobytes() if isinstance(x, np.ndarray) else x == y


@settings(max_examples=60, deadline=None)
@given(engine=engines(), workload=workloads)
def test_work_conserving(engine: EngineSpec, workload: Workload) -> None:
    """While somebody is in the system a step is running (one replica, host time is part of its steps)."""
    result = simulate_engines([engine], workload, record_steps=True)
    done = ~np.isnan(result.finish_s)
    start, end = result.steps["start_s"], result.steps["end_s"]
    idle = np.flatnonzero(start[1:] > end[:-1] + 1e-9)
    for i in idle:
        present = (result.sent_s[done] < start[i + 1] - 1e-9) & (result.finish_s[done] > end[i] + 1e-9)
        assert not present.any()


@settings(max_examples=40, deadline=None)
@given(workload=workloads, blocks=st.integers(40, 300))
def test_faster_device_never_slows_a_fixed_schedule(workload: Workload, blocks: int) -> None:
    """One request at a time: the schedule cannot change, so a faster step is a faster run."""
    knobs = Scheduler(max_num_seqs=1, max_num_batched_tokens=512)
    slow = simulate_engines([law_engine(num_blocks=blocks, scheduler=knobs)], workload)
    fast = simulate_engines([law_engine(num_blocks=blocks, scheduler=knobs, kv_s=1e-8, base_s=4e-3)], workload)
    assert (fast.finish_s <= slow.finish_s + 1e-9).all()


@pytest.mark.parametrize("router", ["round_robin", "least_outstanding", "prefix_aware"])
def test_closed_loop_keeps_its_concurrency(router: str) -> None:
    workload = random_workload(3, 80, 1.0, concurrency=7)
    result = simulate_engines([law_engine(), law_engine()], workload, router=router)
    edges = np.concatenate([result.sent_s, result.finish_s])
    change = np.concatenate([np.ones(80), -np.ones(80)])
    order = np.lexsort((change, edges))
    assert np.cumsum(change[order]).max() == 7
    assert (np.sort(result.sent_s)[7:] == np.sort(result.finish_s)[: 80 - 7]).all()


@pytest.mark.parametrize("replicas", [1, 3])
def test_latency_outside_the_engine(replicas: int) -> None:
    """It is part of TTFT, and in a closed loop nobody is sent before the answer before it has come back."""
    engine = dataclasses.replace(law_engine(), request_latency_s=0.5)
    workload = random_workload(4, 40, 1.0, concurrency=6)
    result = simulate_engines([engine] * replicas, workload)
    assert (result.scheduled_s - result.sent_s >= 0.5 - 1e-9).all()
    np.testing.assert_allclose(np.sort(result.sent_s)[6:], np.sort(result.finish_s)[:34], rtol=1e-12)
