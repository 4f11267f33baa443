"""Expert offload inside serving runs."""

from collections import OrderedDict
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InfeasibleError, InputError
from simtool.hardware.cluster import parse_cluster
from simtool.models.config import load_architecture
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import make_shard
from simtool.models.memory import weight_bytes_per_device
from simtool.models.offload_memory import expert_bytes, hbm_slots
from simtool.models.routing.reach import touched_experts
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape, moe_shape
from simtool.models.routing.source import uniform
from simtool.models.routing.trace_file import write_routing
from simtool.offloads import OFFLOAD_POLICIES, offload_text, parse_offload
from simtool.plan import ExpertOffload, KvPolicy, Parallel, Plan, Pool, Scheduler
from simtool.planners.bound import work_bound
from simtool.planners.demand import demand_of
from simtool.planners.floor import step_floor
from simtool.planners.latency import latency_floor
from simtool.run import engines_of, simulate
from simtool.simulator.offload.clock import OffloadClock
from simtool.simulator.offload.costs import ExpertPrices, price_experts
from simtool.simulator.offload.routes import route_bank
from simtool.simulator.offload.served import OffloadSpec, ServedStore
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.routing import ROUTERS
from simtool.simulator.run import run_offloaded, simulate_engines
from simtool.simulator.setup import build_state
from simtool.simulator.step_costs import priced
from simtool.workload import make_workload
from tests.simulator.engines import law_engine
from tests.simulator.test_laws import SCENARIOS, assert_same, engines, random_workload, workloads

SHAPE = MoeShape(layers=(0, 1, 2), num_experts=6, top_k=2)
PRICES = ExpertPrices(
    expert_s=np.concatenate([[0.0], 1e-4 + 1e-6 * np.arange(1, 513)]),
    load_s=2e-3,
    cpu_s=np.concatenate([[0.0], 5e-4 + 1e-4 * np.arange(1, 513)]),
    sync_s=1e-4,
)
POLICIES = st.sampled_from([name for name in OFFLOAD_POLICIES if name != "none"])


@cache
def routes(routing, offload):
    return route_bank(routing, SHAPE, offload)


def offloaded(engine, policy="lru", routing="zipf:0.8,locality=0.5", **options):
    """The law's engine with three mixture layers on top."""
    offload = ExpertOffload(policy=policy, **{"slots": 3, **options})
    on_device = policy not in ("static-cpu", "static-cheaper")
    width = engine.tables.shared_s.shape[1]
    least = PRICES.least_s(np.arange(width, dtype=np.float64), SHAPE.top_k, len(SHAPE.layers)) * on_device
    spec = OffloadSpec(
        offload=offload,
        shape=SHAPE,
        bank=routes(routing, replace(offload, slots=0)),
        expert_bytes=100.0,
        dense_share=np.full(3, 1 / 3),
    )
    tables = replace(engine.tables, shared_s=least[None, :], experts=PRICES)
    return replace(engine, tables=tables, lower=tables, upper=tables, offload=spec)


@settings(SCENARIOS, max_examples=60)
@given(engine=engines(), workload=workloads)
def test_without_offload_the_clock_is_the_simulator(engine, workload):
    state = build_state([engine], workload, exact_steps=True, reserve_full=1)
    found = run_offloaded(state, [engine], workload, ROUTERS["round_robin"])
    assert found.offload is None
    assert_same(found, simulate_engines([engine], workload, exact_steps=True), 1e-9)


@settings(max_examples=25, deadline=None)
@given(policy=POLICIES, slots=st.integers(1, 6), seed=st.integers(0, 99), rate=st.sampled_from([2.0, 50.0]))
def test_no_step_is_faster_than_its_tables(policy, slots, seed, rate):
    """So the planner's bounds, which go by tables, are bounds; and the counts add up."""
    engine, workload = offloaded(law_engine(), policy, slots=slots), random_workload(seed, 30, rate, 0)
    found, use = simulate_engines([engine], workload), simulate_engines([engine], workload).offload
    assert use is not None
    assert (use.hits <= use.needed).all()
    assert (use.end_s > use.start_s).all()
    assert (use.start_s[1:] >= use.end_s[:-1] - 1e-9).all()
    assert use.needed.sum() == use.layer_needed.sum()
    demand = demand_of(workload, prefix_caching=False)
    floors = step_floor(engine, concurrency=1e9, longest_context=10_000, share_blocks=False)
    duration_s = found.finish_s.max() - found.sent_s.min()
    assert work_bound(demand, [(floors, 1)])[0] <= duration_s * (1 + 1e-9)
    latency = latency_floor(engine, demand)
    assert (latency.e2e_s <= (found.finish_s - found.sent_s) * (1 + 1e-9)).all()


class LruByHand:
    """What an LRU a layer hits and loads, as a few lines of Python."""

    def __init__(self, slots):
        self.slots, self.held = slots, [OrderedDict() for _ in SHAPE.layers]

    def step(self, experts):
        hits = needed = 0
        for layer, held in enumerate(self.held):
            wanted = sorted(set(experts[:, layer].ravel().tolist()))
            here, missing = [e for e in wanted if e in held], [e for e in wanted if e not in held]
            for expert in here:
                held.move_to_end(expert)
            for expert in missing:
                if len(held) == self.slots:
                    held.popitem(last=False)
                held[expert] = True
            hits, needed = hits + len(here), needed + len(wanted)
        return hits, needed


def test_hits_are_those_of_an_lru_by_hand(monkeypatch):
    rows = []
    step = ServedStore.step

    def watched(store, state, row, lane, *seconds):
        count = int(state.lane_i[row, lane, 8] + state.lane_i[row, lane, 9])  # STEP_PREFILL, STEP_DECODES
        found = step(store, state, row, lane, *seconds)
        rows.append(store._rows[:count].copy())
        return found

    monkeypatch.setattr(ServedStore, "step", watched)
    engine = offloaded(law_engine(scheduler=Scheduler(max_num_seqs=3, max_num_batched_tokens=24)), slots=4)
    use = simulate_engines([engine], random_workload(1, 12, 5.0, 0)).offload
    by_hand = LruByHand(4)
    found = [by_hand.step(engine.offload.bank.experts[step]) for step in rows]
    assert [hits for hits, _ in found] == use.hits.tolist()
    assert [needed for _, needed in found] == use.needed.tolist()


def test_room_for_all_loads_each_expert_once():
    use = simulate_engines([offloaded(law_engine(), slots=6)], random_workload(0, 40, 5.0, 0)).offload
    assert use.loads.sum() == use.needed.sum() - use.hits.sum() <= 18
    assert use.hit_rate > 0.9
    assert use.stall_s[len(use.stall_s) // 2 :].sum() == 0.0  # warm


def test_a_replica_with_offload_beside_one_without():
    engine = law_engine()
    found = simulate_engines([engine, offloaded(engine)], random_workload(0, 40, 20.0, 0))
    assert found.offload is not None
    assert np.isfinite(found.finish_s).all()
    alone = OffloadClock([engine])
    assert alone.use() is None


def test_routes_of_a_recorded_trace_are_the_requests_own(tmp_path):
    workload = random_workload(2, 6, 5.0, 0)
    tokens = int((workload.input_tokens + workload.output_tokens).max())
    trace = sample_trace(uniform(SHAPE), sequences=6, output_tokens=tokens, rng=np.random.default_rng(0))
    write_routing(trace, tmp_path / "routes.npz")
    bank = route_bank(str(tmp_path / "routes.npz"), SHAPE, ExpertOffload())
    assert bank.recorded
    place = bank.row[bank.starts[4] + 7]
    assert (bank.experts[place] == trace.experts[4 * tokens + 7]).all()
    engine = offloaded(law_engine(), routing=str(tmp_path / "routes.npz"))
    assert simulate_engines([engine], workload).offload.hit_rate > 0
    short = sample_trace(uniform(SHAPE), sequences=6, output_tokens=3, rng=np.random.default_rng(0))
    write_routing(short, tmp_path / "short.npz")
    with pytest.raises(InputError, match="lacks a token of the run; it has 6 requests of 3 to 3 tokens"):
        simulate_engines([offloaded(law_engine(), routing=str(tmp_path / "short.npz"))], workload)
    with pytest.raises(InputError, match="3 layers of 6"):
        route_bank(str(tmp_path / "short.npz"), replace(SHAPE, layers=(0, 1)), ExpertOffload())


def a_plan(offload, **changed):
    pool = Pool(device="a100-40g", scheduler=Scheduler(max_num_seqs=4, max_num_batched_tokens=512), offload=offload)
    return Plan(model="mixtral-8x7b", cluster="1xa100-40g", pools=(replace(pool, **changed),))


WORKLOAD = make_workload(np.arange(3.0), np.full(3, 64, np.int32), np.full(3, 4, np.int32))


def test_memory_of_a_model_that_does_not_fit():
    arch = load_architecture("mixtral-8x7b")
    with pytest.raises(InfeasibleError, match="memory"):
        engines_of(a_plan(ExpertOffload()), WORKLOAD)
    blocks = {}
    for slots in (1, 2):
        (engine,) = engines_of(a_plan(ExpertOffload(policy="lru", slots=slots)), WORKLOAD)
        away = 32 * 8 - hbm_slots(engine.offload.offload, moe_shape(arch))
        whole = weight_bytes_per_device(arch, Parallel(), 0)
        assert engine.memory.weight_bytes == pytest.approx(whole - away * expert_bytes(arch, Parallel()))
        blocks[slots] = engine.num_blocks
    assert blocks[1] > blocks[2]
    assert not engine.scheduler.cuda_graphs  # the host decides by what the gate chose


def test_a_served_plan_has_an_interval_around_it():
    (engine,) = engines_of(a_plan(ExpertOffload(policy="lru", slots=2)), WORKLOAD)
    ends = [simulate_engines([replace(engine, tables=getattr(engine, side))], WORKLOAD) for side in ("lower", "upper")]
    low, high = (run.finish_s.max() for run in ends)
    assert low < simulate(a_plan(ExpertOffload(policy="lru", slots=2)), WORKLOAD).finish_s.max() < high


@pytest.mark.parametrize(
    ("offload", "changed", "match"),
    [
        (ExpertOffload(policy="lru", slots=9), {}, "8 experts"),
        (ExpertOffload(policy="lru"), {}, "no slots"),
        (ExpertOffload(policy="lru", slots=2), {"kv": KvPolicy(block_size=0)}, "block_size"),
    ],
)
def test_refused(offload, changed, match):
    with pytest.raises(InputError, match=match):
        engines_of(a_plan(offload, **changed), WORKLOAD)


def test_experts_that_host_memory_lacks():
    pool = Pool(device="rtx-4090", offload=ExpertOffload(policy="lru", slots=1))
    plan = Plan(model="deepseek-v3", cluster="1xrtx-4090", pools=(pool,))
    with pytest.raises(InfeasibleError, match="host-memory"):
        engines_of(replace(plan, weight_dtype="bf16"), WORKLOAD)


@given(POLICIES, st.integers(0, 500), st.integers(0, 500), st.integers(1, 9), st.integers(0, 100))
def test_text_and_back(policy, slots, staging, window, recall):
    offload = ExpertOffload(policy=policy, slots=slots, staging=staging, window=window, recall=recall / 100)
    assert parse_offload(offload_text(offload)) == offload


WRONG = ["", "lru,slots=x", "lru,slots=1,slots=2", "lru,slots=1.5", "fifo", "none,slots=2", "lru,recall=2"]


@pytest.mark.parametrize("text", [*WRONG, "lru,slots=-1", "lru,slots=nan"])
def test_no_offload(text):
    with pytest.raises(InputError):
        parse_offload(text)


def test_a_host_that_is_the_device_copies_and_then_computes():
    """Nothing hides a copy there: the steps take longer by every load, and all else is the same."""
    engine, workload = offloaded(law_engine(), slots=2), random_workload(0, 1, 5.0, 0)
    alone = replace(engine.tables, experts=replace(PRICES, apart=False))
    free = replace(engine.tables, experts=replace(PRICES, load_s=0.0))
    copied, none = (simulate_engines([replace(engine, tables=tables)], workload).offload for tables in (alone, free))
    taken, least = (use.end_s - use.start_s for use in (copied, none))
    assert (copied.loads == none.loads).all()
    assert taken == pytest.approx(least + PRICES.load_s * copied.loads)
    assert copied.stall_s[:, 0] == pytest.approx(PRICES.load_s * copied.loads)


def test_prices_of_experts_that_run_together_are_those_of_a_step():
    """The experts that a step needs on average cost what it is priced at without offload.

    Not at a few tokens: an expert has whole ones, and a kernel's price of 1.5 each is not half way.
    """
    arch, tokens = load_architecture("mixtral-8x7b"), np.array([1.0, 64.0, 512.0])
    hardware, host = priced_cluster(parse_cluster("1xa100-80g"), "vllm")
    pool = Pool(device="a100-80g", offload=ExpertOffload(policy="zero-copy", slots=4))
    (prices, _, _), _ = price_experts(arch, pool, hardware["a100-80g"], host)
    mlp, shard = arch.layers[0].mlp, make_shard(arch, Parallel(), 0)
    needed = touched_experts(mlp, tokens)
    experts = [operator for operator in expert_operators(shard, tokens) if operator.family == "moe"]
    whole, _ = priced(experts, hardware["a100-80g"], tokens)
    each = np.interp(tokens * mlp.top_k / needed, np.arange(len(prices.expert_s)), prices.expert_s)
    assert len(arch.layers) * needed * each == pytest.approx(whole[0], rel=0.02)
