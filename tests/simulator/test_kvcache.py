"""KV blocks are conserved, with and without shared prefixes, and cached prefixes are found again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simtool.plan import Scheduler
from simtool.simulator import state as columns
from simtool.simulator.cluster import run_cluster
from simtool.simulator.routing import ROUTERS
from simtool.simulator.run import simulate_engines
from simtool.simulator.setup import build_state
from simtool.workload import Workload, make_workload
from tests.simulator.engines import law_engine


def shared_workload(seed: int, requests: int, families: int, rate: float) -> Workload:
    """Prompts that share a random number of leading blocks with others of their family."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 300, requests).astype(np.int32)
    family = rng.integers(0, families, requests)
    ids, offsets, fresh = [], [0], 20 * families
    for prompt, kin in zip(tokens, family, strict=True):
        full = int(prompt) // 32
        common = int(rng.integers(0, full + 1))
        ids += [20 * int(kin) + j for j in range(common)] + list(range(fresh, fresh + full - common))
        fresh += full - common
        offsets.append(len(ids))
    base = make_workload(
        np.cumsum(rng.exponential(1 / rate, requests)), tokens, rng.integers(1, 200, requests).astype(np.int32)
    )
    return dataclasses.replace(
        base,
        prefix_ids=np.array(ids, np.int32),
        prefix_offsets=np.array(offsets, np.int64),
        prefix_block_tokens=32,
    )


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    families=st.integers(1, 5),
    rate=st.sampled_from([1.0, 20.0, 1e6]),
    blocks=st.integers(40, 200),
    mode=st.sampled_from(["chunked", "prefill_first", "no_chunking"]),
    caching=st.booleans(),
    pp=st.sampled_from([1, 2]),
)
# a preempted request that came back to end in the iteration of its stale entry finished twice
@example(seed=1, families=1, rate=20.0, blocks=55, mode="prefill_first", caching=True, pp=1)
def test_blocks_are_conserved(
    seed: int, families: int, rate: float, blocks: int, mode: str, caching: bool, pp: int
) -> None:
    knobs = Scheduler(scheduling=mode, max_num_seqs=8, max_num_batched_tokens=512)  # type: ignore[arg-type]
    engine = law_engine(num_blocks=blocks, scheduler=knobs, prefix_caching=caching, pp=pp)
    workload = shared_workload(seed, 40, families, rate)
    s = run_cluster(build_state([engine, engine], workload), workload, ROUTERS["prefix_aware"]).state
    assert (s.row_i[:, columns.FREE] == blocks).all()
    assert (s.row_i[:, columns.PLAIN] + s.node_blocks.sum(axis=1) == blocks).all()
    assert (s.node_refs == 0).all()
    assert (s.req_i[:, columns.BLOCKS] == 0).all()
    assert (s.row_i[:, [columns.RUNNING, columns.WAITING, columns.OUTSTANDING]] == 0).all()
    assert (s.phase == 0).all()


def test_a_repeated_prompt_is_found() -> None:
    """One block of 32 tokens is 2 KV blocks; the last token is always computed."""
    prompt = np.array([100, 100, 64], np.int32)
    base = make_workload(np.array([0.0, 100.0, 200.0]), prompt, np.array([5, 5, 5], np.int32))
    workload = dataclasses.replace(
        base,
        prefix_ids=np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32),
        prefix_offsets=np.array([0, 3, 6, 8], np.int64),
        prefix_block_tokens=32,
    )
    result = simulate_engines([law_engine(prefix_caching=True)], workload)
    assert result.cached_tokens.tolist() == [0, 96, 48]
    assert simulate_engines([law_engine()], workload).cached_tokens.tolist() == [0, 0, 0]
    ttft_s = result.first_token_s - result.sent_s
    assert ttft_s[1] < ttft_s[0]


def test_least_recently_used_goes_first() -> None:
    """Room for two prompts and a half: touching A keeps it, so that C evicts B, from its end; 3 nodes of B are left."""
    order = [0, 1, 0, 2, 0, 1]
    prompts = np.full(6, 257, np.int32)
    base = make_workload(100.0 * np.arange(6.0), prompts, np.ones(6, np.int32))
    workload = dataclasses.replace(
        base,
        prefix_ids=np.concatenate([8 * k + np.arange(8) for k in order]).astype(np.int32),
        prefix_offsets=np.arange(0, 49, 8).astype(np.int64),
        prefix_block_tokens=32,
    )
    result = simulate_engines([law_engine(num_blocks=40, prefix_caching=True)], workload)
    assert result.cached_tokens.tolist() == [0, 0, 256, 0, 256, 96]


def test_prefix_blocks_must_divide() -> None:
    workload = dataclasses.replace(shared_workload(1, 5, 1, 1.0), prefix_block_tokens=24)
    with pytest.raises(Exception, match="multiple of the KV block size"):
        simulate_engines([law_engine(prefix_caching=True)], workload)
