"""Real batches of the simulator's schedule: every token is computed from exactly the tokens before it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hyp

from simtool.calibration.executor.prompts import prompt_ids
from simtool.calibration.executor.real_clock import RealClock
from simtool.plan import Scheduler
from simtool.simulator.routing import ROUTERS
from simtool.simulator.run import FIRST_RECORDS
from simtool.simulator.setup import build_state
from simtool.simulator.stepped import SteppedCluster
from simtool.traces import with_samples
from simtool.workload import Workload
from tests.calibration.executor.fake_runner import VOCAB, FakeRunner, greedy
from tests.simulator.engines import law_engine

MODES = ("chunked", "no_chunking", "prefill_first")


def shared_workload(seed: int, requests: int, *, rate: float, concurrency: int = 0, nodes: int = 6, block: int = 16):
    """Requests whose prompts start with a path through a small tree of prefixes."""
    rng = np.random.default_rng(seed)
    ids, offsets, inputs = [], [0], []
    for _ in range(requests):
        depth = int(rng.integers(0, 4))
        branch = int(rng.integers(0, 2))
        path = [branch * (nodes // 2) + level for level in range(min(depth, nodes // 2))]
        ids += path
        offsets.append(len(ids))
        inputs.append(len(path) * block + int(rng.integers(1, 60)))
    dense = {node: place for place, node in enumerate(dict.fromkeys(ids))}
    return Workload(
        arrival_s=np.zeros(requests) if concurrency else np.cumsum(rng.exponential(1 / rate, requests)),
        input_tokens=np.array(inputs, np.int32),
        output_tokens=rng.integers(1, 40, requests).astype(np.int32),
        priority=rng.integers(0, 3, requests).astype(np.int32),
        prefix_ids=np.array([dense[node] for node in ids], np.int32),
        prefix_offsets=np.array(offsets, np.int64),
        prefix_block_tokens=block,
        follows=np.empty(0, np.int32),
        think_s=np.empty(0),
        max_concurrency=concurrency,
    )


def execute(specs, workload, router="round_robin", seconds_of=lambda batches: 0.01):
    state = build_state(specs, workload, exact_steps=True, reserve_full=1, record_capacity=FIRST_RECORDS)
    runners = [FakeRunner(spec.dp, spec.num_blocks, spec.block_size, seconds_of) for spec in specs]
    clock = RealClock(state, workload, runners, vocab_size=VOCAB, seed=5, read=lambda: 0.0)
    cluster = SteppedCluster(state, workload, ROUTERS[router], clock)
    cluster.run()
    return cluster, clock


def assert_tokens_right(clock, workload):
    generated = {}
    for sequences in clock.sequences():
        generated |= {request: sequences.generated(request).tolist() for request in sequences.known}
    assert sorted(generated) == list(range(workload.num_requests))
    for request, tokens in generated.items():
        prompt = prompt_ids(workload, request, VOCAB, 5)
        assert tokens == greedy(prompt, int(workload.output_tokens[request])), request


@settings(max_examples=60, deadline=None)
@given(
    seed=hyp.integers(0, 10_000),
    mode=hyp.sampled_from(MODES),
    policy=hyp.sampled_from(["fcfs", "priority"]),
    caching=hyp.booleans(),
    size=hyp.sampled_from([4, 8, 16]),
    blocks=hyp.integers(160, 320),
    seqs=hyp.sampled_from([2, 8, 32]),
    rate=hyp.sampled_from([5.0, 50.0, 1e6]),
    concurrency=hyp.sampled_from([0, 0, 7]),
)
def test_every_token_follows_from_all_before_it(seed, mode, policy, caching, size, blocks, seqs, rate, concurrency):
    tokens = 64 if mode != "no_chunking" else 256
    knobs = Scheduler(scheduling=mode, policy=policy, max_num_seqs=seqs, max_num_batched_tokens=tokens)
    spec = law_engine(num_blocks=blocks // size + 16, block_size=size, scheduler=knobs, prefix_caching=caching)
    workload = shared_workload(seed, 30, rate=rate, concurrency=concurrency)
    _, clock = execute([spec], workload)
    assert_tokens_right(clock, workload)


@settings(max_examples=60, deadline=None)
@given(
    seed=hyp.integers(0, 10_000),
    mode=hyp.sampled_from(MODES),
    n=hyp.integers(2, 4),
    size=hyp.sampled_from([4, 8, 16]),
    blocks=hyp.integers(160, 320),
    rate=hyp.sampled_from([5.0, 50.0, 1e6]),
)
def test_samples_of_one_prompt_find_its_blocks_to_the_last(seed, mode, n, size, blocks, rate):
    """Every other prompt ends with a block, so that all of it may be cached and its last token is computed anew."""
    tokens = 64 if mode != "no_chunking" else 256
    knobs = Scheduler(scheduling=mode, max_num_seqs=8, max_num_batched_tokens=tokens)
    spec = law_engine(num_blocks=blocks // size + 16, block_size=size, scheduler=knobs, prefix_caching=True)
    one = shared_workload(seed, 12, rate=rate)
    whole = -(-one.input_tokens // 16) * 16
    one = replace(one, input_tokens=np.where(np.arange(12) % 2, whole, one.input_tokens).astype(np.int32))
    workload = with_samples(one, n)
    _, clock = execute([spec], workload)
    assert_tokens_right(clock, workload)


@pytest.mark.parametrize("router", sorted(ROUTERS))
@pytest.mark.parametrize(("pp", "dp"), [(1, 1), (1, 2), (2, 1), (3, 2)])
def test_pipelines_ranks_and_replicas(router, pp, dp):
    knobs = Scheduler(max_num_seqs=8, max_num_batched_tokens=64)
    specs = [
        law_engine(num_blocks=40, block_size=8, scheduler=knobs, pp=pp, dp=dp, prefix_caching=True) for _ in range(2)
    ]
    workload = shared_workload(1, 60, rate=200.0)
    cluster, clock = execute(specs, workload, router)
    assert_tokens_right(clock, workload)
    assert cluster.state.req_i[:, 12].sum() > 0, "nothing was preempted: the test is too easy"


def test_free_blocks_are_the_scheduler_s_when_all_have_left():
    spec = law_engine(num_blocks=30, block_size=8, prefix_caching=True)
    _, clock = execute([spec], shared_workload(2, 40, rate=100.0))
    (sequences,) = clock.sequences()
    cached = sum(len(blocks) for blocks in sequences.blocks.nodes.values())
    assert len(sequences.blocks.free) + cached == 30
    assert not sequences.blocks.tables
