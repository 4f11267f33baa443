"""Law: no simulated run beats its bound, in any objective, on random plans and workloads."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simtool.errors import InfeasibleError
from simtool.metrics import Slo
from simtool.overlaps import STOCK
from simtool.plan import KvPolicy, Overlap, Parallel, Plan, Pool, Scheduler
from simtool.planners.bound import covers, work_bound
from simtool.planners.demand import demand_of
from simtool.planners.evaluate import floors_of, optimistic, simulate_plan
from simtool.planners.floor import convex, rising
from simtool.planners.objective import OBJECTIVES, maximised, objective_value
from tests.planners import standin

PARALLELS = [
    (1, 1, 1, 1),
    (2, 1, 1, 1),
    (1, 2, 1, 1),
    (2, 2, 1, 1),
    (1, 4, 1, 1),
    (1, 1, 2, 2),
    (2, 1, 2, 1),
    (1, 2, 2, 2),
]


@st.composite
def scenarios(draw):
    tp, pp, dp, ep = draw(st.sampled_from(PARALLELS))
    pool = Pool(
        device="fast",
        replicas=draw(st.integers(1, 3)),
        parallel=Parallel(tp=tp, pp=pp, dp=dp, ep=ep),
        scheduler=Scheduler(
            scheduling=draw(st.sampled_from(["chunked", "no_chunking", "prefill_first", "static"])),
            max_num_seqs=draw(st.sampled_from([2, 8, 32])),
            max_num_batched_tokens=draw(st.sampled_from([64, 128, 512])),
        ),
        kv=KvPolicy(),
        overlap=draw(st.sampled_from([Overlap(), STOCK["two-batch"]])),
    )
    work = standin.workload(
        n=draw(st.integers(1, 20)),
        inputs=draw(st.sampled_from([1, 30, 200])),
        outputs=draw(st.sampled_from([1, 5, 25])),
        concurrency=draw(st.sampled_from([0, 0, 1, 4, 20])),
        rate=draw(st.sampled_from([0.0, 5.0, 50.0])),
        seed=draw(st.integers(0, 1000)),
    )
    if pool.scheduler.scheduling == "no_chunking":
        pool = replace(pool, scheduler=replace(pool.scheduler, max_num_batched_tokens=512))
    return pool, replace(work, warmup_requests=draw(st.sampled_from([0, 0, 5])) % work.num_requests)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios(), st.sampled_from([1500.0, 3000.0]))
def test_no_run_beats_its_bound(scenario, weights):
    pool, work = scenario
    tool = standin.backend(moe=pool.parallel.dp > 1, weights=weights)
    plan = Plan(model="toy", cluster="4xfast", pools=(pool,))
    try:
        spec = tool.compile(plan, pool)
    except InfeasibleError:
        return
    if (work.input_tokens + work.output_tokens).max() > spec.num_blocks * spec.block_size:
        return
    slo = Slo(ttft_s=0.2, tpot_s=0.01)
    demand = demand_of(work, prefix_caching=False)
    floors = floors_of(spec, demand, prefix_caching=False)
    best = optimistic(demand, [(floors, pool.replicas)], slo, plan.devices, tool.usd_per_hour(plan))
    run = simulate_plan(tool, plan, [spec], work, slo)
    for objective in OBJECTIVES:
        value, bound = objective_value(objective, run.outcome), objective_value(objective, best)
        if np.isnan(value):
            continue
        beaten = value > bound * (1 + 1e-9) if maximised(objective) else value < bound * (1 - 1e-9)
        assert not beaten, (objective, value, bound)
    assert run.attainment <= best.good_requests / best.requests + 1e-9


def test_prices_cover_every_step():
    work = standin.workload(concurrency=8)
    pool = Pool(device="fast", scheduler=Scheduler(max_num_seqs=32, max_num_batched_tokens=128))
    tool = standin.backend()
    spec = tool.compile(Plan(model="toy", cluster="4xfast", pools=(pool,)), pool)
    demand = demand_of(work, prefix_caching=False)
    floor = floors_of(spec, demand, prefix_caching=False).step
    seconds, prices = work_bound(demand, [(floor, 2)])
    assert seconds == pytest.approx(prices.value(demand))
    assert covers(prices, [(floor, 2)]) >= 1.0
    tables, worth = spec.tables, prices
    for d in range(9):
        for p in range(128 - d):
            if d + p == 0:
                continue
            x = float(demand.shortest_context)
            step = tables.token_s[0, d + p] + tables.head_s[d] + tables.host_s[d]
            step += np.interp(x, tables.kv_knots, tables.decode_s[0, d])
            cost = step * (worth.replica[0][0] + worth.flight * (d + (p > 0)))
            assert worth.decode * d + worth.prefill * p + worth.kv_read * d * x <= cost * (1 + 1e-9)


def test_more_replicas_or_concurrency_never_raise_the_bound():
    pool = Pool(device="fast", scheduler=Scheduler(max_num_seqs=32, max_num_batched_tokens=128))
    tool = standin.backend()
    spec = tool.compile(Plan(model="toy", cluster="4xfast", pools=(pool,)), pool)
    times = []
    for concurrency, replicas in ((2, 1), (4, 1), (8, 1), (8, 2), (8, 4), (0, 4)):
        demand = demand_of(standin.workload(n=100, concurrency=concurrency), prefix_caching=False)
        floor = floors_of(spec, demand, prefix_caching=False).step
        times.append(work_bound(demand, [(floor, replicas)])[0])
    assert all(a >= b * (1 - 1e-3) for a, b in pairwise(times))
    assert times[0] > 2 * times[-1]


def test_envelopes_lie_below():
    rng = np.random.default_rng(1)
    values = rng.random(50) + np.arange(50) / 20
    assert (rising(values) <= values).all()
    assert (np.diff(rising(values)) >= 0).all()
    hull = convex(rising(values))
    assert (hull <= values + 1e-12).all()
    assert (np.diff(hull, 2) >= -1e-12).all()
    assert (np.diff(hull) >= -1e-12).all()
