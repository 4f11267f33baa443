"""Transformations keep what they say they keep."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.traces import (
    Sessions,
    SharedPrefixes,
    drop_beyond_context,
    first_requests,
    fit_context,
    inspect_workload,
    mean_rate,
    retime,
    scale_to_rate,
    subsample,
    synthesise,
    time_scale,
    with_samples,
    with_warmup,
)
from simtool.workload import Workload, check_workload


def sample(count: int = 300, seed: int = 0, turns: int = 3) -> Workload:
    return synthesise(
        num_requests=count,
        input_len="lognormal:200:0.8",
        output_len="uniform:1:100",
        rng=np.random.default_rng(seed),
        request_rate=4.0,
        sessions=Sessions(turns=turns, think_s=2.0),
        prefixes=SharedPrefixes(count=3, tokens=64),
    )


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), share=st.floats(0.2, 1.0), head=st.integers(1, 400), limit=st.integers(600, 3000))
def test_every_transformation_gives_a_sound_workload(seed: int, share: float, head: int, limit: int) -> None:
    random = np.random.default_rng(seed)
    whole = sample(seed=seed)
    for made in (
        first_requests(whole, head),
        subsample(whole, share, random),
        time_scale(whole, share),
        scale_to_rate(whole, 9.0),
        retime(whole, 2.0, 0.5, random),
        fit_context(whole, limit, "clip"),
        fit_context(whole, limit, "drop"),
        with_warmup(whole, requests=head // 2, seconds=3.0),
    ):
        check_workload(made)
        if len(made.prefix_ids):
            assert len(np.unique(made.prefix_ids)) == made.prefix_ids.max() + 1
    for policy in ("clip", "drop"):
        fitted = fit_context(whole, limit, policy)
        assert (fitted.input_tokens + fitted.output_tokens).max() <= limit


def test_rate_is_scaled_and_shape_kept() -> None:
    whole = sample()
    assert mean_rate(scale_to_rate(whole, 50.0)) == pytest.approx(50.0)
    before, after = inspect_workload(whole), inspect_workload(scale_to_rate(whole, 50.0))
    assert after["interarrival_cv"] == pytest.approx(before["interarrival_cv"])


def test_retimed_requests_keep_order_lengths_and_rate() -> None:
    whole = sample(2000, turns=1)
    made = retime(whole, 7.0, 1.0, np.random.default_rng(1))
    np.testing.assert_array_equal(made.input_tokens, whole.input_tokens)
    assert mean_rate(made) == pytest.approx(7.0, rel=0.15)


def test_thinning_keeps_whole_sessions_and_poisson_arrivals() -> None:
    made = subsample(sample(30_000, turns=1), 0.25, np.random.default_rng(1))
    assert made.num_requests == pytest.approx(7500, rel=0.05)
    assert inspect_workload(made)["interarrival_cv"] == pytest.approx(1.0, rel=0.05)
    thinned = subsample(sample(), 0.5, np.random.default_rng(1))
    assert np.count_nonzero(thinned.follows >= 0) == thinned.num_requests * 2 // 3


def test_a_session_ends_where_a_turn_is_dropped() -> None:
    whole = sample()
    made = drop_beyond_context(whole, 900)
    turns = np.ones(made.num_requests, int)
    for row in np.flatnonzero(made.follows >= 0):
        turns[row] = turns[made.follows[row]] + 1
    assert np.count_nonzero(made.follows < 0) == np.count_nonzero(turns == 1)
    assert np.count_nonzero(turns == 1) >= np.count_nonzero(turns == 2) >= np.count_nonzero(turns == 3)


def test_warmup_by_time_and_number() -> None:
    whole = replace(sample(5, turns=1), arrival_s=np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert with_warmup(whole, seconds=2.0).warmup_requests == 2
    assert with_warmup(whole, requests=3, seconds=2.0).warmup_requests == 3
    assert first_requests(with_warmup(whole, requests=3), 4).warmup_requests == 3


def test_bad_arguments() -> None:
    whole = sample(20)
    once = replace(whole, arrival_s=np.zeros(20))
    random = np.random.default_rng(0)
    for wrong in (
        lambda: time_scale(whole, 0.0),
        lambda: scale_to_rate(whole, float("inf")),
        lambda: scale_to_rate(once, 5.0),
        lambda: subsample(whole, 0.0, random),
        lambda: subsample(whole, 1e-12, random),
        lambda: first_requests(whole, 0),
        lambda: with_warmup(whole, requests=20),
        lambda: with_warmup(whole, seconds=1e9),
        lambda: fit_context(whole, 1, "clip"),
        lambda: fit_context(whole, 2, "drop"),
        lambda: fit_context(whole, 100, "cut"),
        lambda: retime(whole, 0.0, 1.0, random),
    ):
        with pytest.raises(InputError):
            wrong()


@given(st.integers(1, 4), st.booleans(), st.sampled_from([5, 16, 40, 48]), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_samples_share_the_full_blocks_of_their_prompt_and_no_more(n, prefixed, length, warmup):
    prefixes = SharedPrefixes(count=2, tokens=40) if prefixed else None
    one = synthesise(
        num_requests=6,
        input_len=length,
        output_len=3,
        rng=np.random.default_rng(1),
        request_rate=2.0,
        prefixes=prefixes,
        warmup_requests=warmup,
    )
    many = with_samples(one, n)
    check_workload(many)
    assert many.warmup_requests == n * warmup
    for name in ("arrival_s", "input_tokens", "output_tokens"):
        assert np.array_equal(getattr(many, name), np.repeat(getattr(one, name), n))
    if n == 1:
        assert many is one
        return
    full = int(one.input_tokens[0]) // one.prefix_block_tokens
    if not full:
        assert not len(many.prefix_ids)
        return
    rows = np.split(many.prefix_ids, many.prefix_offsets[1:-1])
    assert all(len(row) == full for row in rows)
    shared = 40 // 16 if prefixed else 0
    for prompt in range(6):
        mine = {tuple(row.tolist()) for row in rows[prompt * n : (prompt + 1) * n]}
        assert len(mine) == 1, "one prompt"
    own = [tuple(row[shared:].tolist()) for row in rows[::n]]
    assert len(set(own)) == (6 if full > shared else 1), "other prompts are others"
    if prefixed:
        old = np.split(one.prefix_ids, one.prefix_offsets[1:-1])
        same = [np.array_equal(a, b) for a in old for b in old]
        assert same == [np.array_equal(a[:shared], b[:shared]) for a in rows[::n] for b in rows[::n]]


def test_what_waits_for_all_samples_is_refused():
    with pytest.raises(InputError, match="n = 2 with turns"):
        with_samples(sample(), 2)
    with pytest.raises(InputError, match="n = 2 with max_concurrency"):
        with_samples(replace(sample(turns=1), max_concurrency=4), 2)
    with pytest.raises(InputError, match="n = 0"):
        with_samples(sample(turns=1), 0)
