"""A cluster on somebody else's clock: with the priced seconds it is the simulator, with others it keeps its laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hyp

from simtool.simulator.routing import ROUTERS
from simtool.simulator.run import FIRST_RECORDS, result_of, simulate_engines
from simtool.simulator.setup import build_state
from simtool.simulator.state import LEAP_END, LEAP_START
from simtool.simulator.stepped import SteppedCluster
from tests.simulator.engines import law_engine
from tests.simulator.test_laws import assert_same, engines, random_workload, workloads

SCENARIOS = settings(max_examples=80, deadline=None)  # stepping is a call a step, many times slower than leaping


class PricedClock:
    """Each step takes what the tables say, times `factor`."""

    def __init__(self, factor=1.0):
        self.factor = factor
        self.seconds = {}

    def begin(self, state, group, lane):
        flight = state.flight_f[group, lane]
        self.seconds[group, lane] = (flight[LEAP_END] - flight[LEAP_START]) * self.factor
        return 0.0

    def end(self, group, lane):
        return self.seconds.pop((group, lane))

    def ended(self, state, group, lane):
        pass


def run_stepped(specs, workload, router="round_robin", factor=1.0):
    state = build_state(specs, workload, exact_steps=True, reserve_full=1, record_capacity=FIRST_RECORDS)
    cluster = SteppedCluster(state, workload, ROUTERS[router], PricedClock(factor))
    cluster.run()
    return cluster, result_of(cluster, specs, workload)


@SCENARIOS
@given(engine=engines(), workload=workloads)
def test_on_the_priced_clock_it_is_the_simulator(engine, workload):
    cluster, stepped = run_stepped([engine], workload)
    simulated = simulate_engines([engine], workload, exact_steps=True, record_steps=True)
    assert_same(stepped, simulated, 1e-9)
    for name in ("prefill_tokens", "decode_requests", "kv_blocks", "waiting", "running"):
        assert np.array_equal(stepped.steps[name], simulated.steps[name]), name
    spans = stepped.steps["end_s"] - stepped.steps["start_s"]
    assert np.allclose(cluster.priced_s, spans, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("router", sorted(ROUTERS))
@pytest.mark.parametrize("concurrency", [0, 5])
def test_replicas_behind_a_router_are_the_simulator_s(router, concurrency):
    workload = random_workload(3, 60, 30.0, concurrency)
    specs = [law_engine(), law_engine(num_blocks=200)]
    _, stepped = run_stepped(specs, workload, router)
    assert_same(stepped, simulate_engines(specs, workload, router=router, exact_steps=True), 1e-9)


@SCENARIOS
@given(factor=hyp.floats(0.25, 4.0), seed=hyp.integers(0, 99))
def test_all_at_once_the_schedule_does_not_depend_on_the_clock(factor, seed):
    workload = random_workload(seed, 40, float("inf"))
    _, one = run_stepped([law_engine(num_blocks=120)], workload)
    _, other = run_stepped([law_engine(num_blocks=120)], workload, factor=factor)
    for name in ("prefill_tokens", "decode_requests", "kv_blocks", "waiting", "running"):
        assert np.array_equal(one.steps[name], other.steps[name]), name
    ratio = (other.finish_s - other.sent_s) / (one.finish_s - one.sent_s)
    assert np.allclose(ratio, factor, rtol=1e-6)


def test_pipelined_steps_keep_both_lanes_busy():
    engine = law_engine(pp=2)
    workload = random_workload(1, 40, float("inf"))

    class HalfClock(PricedClock):
        def begin(self, state, group, lane):
            super().begin(state, group, lane)
            return self.seconds[group, lane] / 2

    state = build_state([engine], workload, exact_steps=True, reserve_full=1, record_capacity=FIRST_RECORDS)
    cluster = SteppedCluster(state, workload, ROUTERS["round_robin"], HalfClock())
    cluster.run()
    result = result_of(cluster, [engine], workload)
    assert np.isfinite(result.finish_s).all()
    steps = result.steps
    overlapping = np.count_nonzero(steps["start_s"][1:] < steps["end_s"][:-1] - 1e-12)
    assert overlapping > len(steps["start_s"]) / 2
