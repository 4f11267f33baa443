"""The generator: what was asked for comes out, and the same seed gives the same workload."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.traces import (
    Sessions,
    SharedPrefixes,
    arrivals,
    inspect_workload,
    parse_lengths,
    read_trace,
    shared_prefix_tokens,
    synthesise,
    write_trace,
)
from simtool.workload import check_workload
from tests.traces.test_round_trip import assert_same


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(deadline=None, max_examples=30)
@given(rate=st.floats(0.01, 1e4), burstiness=st.sampled_from([0.25, 1.0, 4.0]), seed=st.integers(0, 2**32))
def test_rate_and_burstiness_are_met(rate: float, burstiness: float, seed: int) -> None:
    count = 20_000
    gaps = np.diff(arrivals(count, rate, burstiness, rng(seed)))
    variation = 1 / math.sqrt(burstiness)
    assert gaps.mean() * rate == pytest.approx(1, abs=6 * variation / math.sqrt(count))
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.15)


def test_constant_and_infinite_rates() -> None:
    np.testing.assert_allclose(np.diff(arrivals(5, 4.0, math.inf, rng())), 0.25)
    assert not arrivals(5, math.inf, 1.0, rng()).any()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), turns=st.integers(1, 5))
def test_same_seed_same_workload(seed: int, turns: int) -> None:
    def make(with_seed: int):
        return synthesise(
            num_requests=200,
            input_len="lognormal:300:0.9",
            output_len="uniform:1:90",
            rng=rng(with_seed),
            request_rate=2.0,
            burstiness=0.5,
            sessions=Sessions(turns=turns, think_s=2.0),
            prefixes=SharedPrefixes(count=5, tokens=100, zipf=1.1),
            priority_shares=(0.5, 0.5),
        )

    assert_same(make(seed), make(seed))
    check_workload(make(seed))
    assert not np.array_equal(make(seed).arrival_s, make(seed + 1).arrival_s)


def test_lengths_by_each_specification() -> None:
    def inputs(spec: str, ratio: float = 0.0) -> np.ndarray:
        made = synthesise(num_requests=20_000, input_len=spec, output_len="9",
                          rng=rng(), random_range_ratio=ratio)  # fmt: skip
        return made.input_tokens

    assert set(inputs("512")) == {512}
    assert (inputs("uniform:3:5").min(), inputs("uniform:3:5").max()) == (3, 5)
    assert (inputs("1024*0.8..1").min(), inputs("1024*0.8..1").max()) == (819, 1024)
    assert (inputs("100", 0.2).min(), inputs("100", 0.2).max()) == (80, 120)
    drawn = inputs("lognormal:512:0.9")
    assert np.median(drawn) == pytest.approx(512, rel=0.05)
    assert np.log(drawn).std() == pytest.approx(0.9, rel=0.05)


def test_empirical_rows_stay_together(tmp_path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("input_tokens,output_tokens\n10,100\n20,200\n30,300\n")
    made = synthesise(num_requests=500, input_len=f"empirical:{path}", output_len=f"empirical:{path}", rng=rng())
    np.testing.assert_array_equal(made.output_tokens, made.input_tokens * 10)
    assert set(made.input_tokens) == {10, 20, 30}
    one = synthesise(num_requests=50, input_len=7, output_len=f"empirical:{path}", rng=rng())
    assert set(one.output_tokens) == {100, 200, 300}


@pytest.mark.parametrize(
    "text",
    ["", "0", "-5", "1.5", "abc", "uniform:5", "uniform:9:5", "uniform:0:5", "lognormal:512", "lognormal:0:1",
     "lognormal:512:99", "10*0..1", "10*1..0.5", "nan", "1e3", "99999999999", "empirical:"],
)  # fmt: skip
def test_bad_lengths(text: str) -> None:
    with pytest.raises(InputError):
        parse_lengths(text)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, math.nan])
def test_bad_range_ratio(ratio: float) -> None:
    with pytest.raises(InputError, match="ratio"):
        parse_lengths("10", random_range_ratio=ratio)
    with pytest.raises(InputError, match="fixed length"):
        parse_lengths("uniform:1:2", random_range_ratio=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_requests": 0},
        {"request_rate": 0.0},
        {"request_rate": -1.0},
        {"request_rate": math.nan},
        {"burstiness": 0.0, "request_rate": 1.0},
        {"max_concurrency": -1},
        {"warmup_requests": 10},
        {"priority_shares": (0.0,)},
        {"priority_shares": (math.nan, 1.0)},
        {"sessions": Sessions(turns=0)},
        {"sessions": Sessions(turns=2, think_s=math.inf)},
        {"prefixes": SharedPrefixes(count=0, tokens=5)},
        {"prefixes": SharedPrefixes(count=1, tokens=5, zipf=-1.0)},
        {"prefixes": SharedPrefixes(count=1, tokens=50, block_tokens=8), "sessions": Sessions(turns=2)},
        {"max_model_len": 1},
    ],
)
def test_bad_requests(wrong: dict) -> None:
    with pytest.raises(InputError):
        synthesise(**({"num_requests": 10, "input_len": 64, "output_len": 8, "rng": rng()} | wrong))


def test_sessions_grow_and_reuse_their_prompts() -> None:
    made = synthesise(num_requests=9, input_len=100, output_len=20, rng=rng(), request_rate=5.0,
                      sessions=Sessions(turns=3, think_s=1.0))  # fmt: skip
    for row in np.flatnonzero(made.follows >= 0):
        before = made.follows[row]
        assert made.input_tokens[row] == made.input_tokens[before] + 20 + 100
        assert made.arrival_s[row] == pytest.approx(made.arrival_s[before] + made.think_s[row])
    turn = (made.input_tokens - 100) // 120
    np.testing.assert_array_equal(
        shared_prefix_tokens(made), np.where(turn > 0, (100 + 120 * (turn - 1)) // 16 * 16, 0)
    )
    assert np.count_nonzero(made.follows < 0) == 3


def test_popular_prefixes_follow_zipf() -> None:
    made = synthesise(num_requests=30_000, input_len=10, output_len=1, rng=rng(),
                      prefixes=SharedPrefixes(count=4, tokens=37, zipf=1.0))  # fmt: skip
    assert set(made.input_tokens) == {47}
    first = made.prefix_ids[made.prefix_offsets[:-1]]
    shares = np.bincount(first)[::2] / len(first)
    np.testing.assert_allclose(shares, np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12), atol=0.02)
    assert inspect_workload(made)["shared_prefix_share"] == pytest.approx(32 / 47, rel=0.01)


def test_priorities_have_their_shares() -> None:
    made = synthesise(num_requests=20_000, input_len=1, output_len=1, rng=rng(), priority_shares=(1, 0, 3))
    np.testing.assert_allclose(np.bincount(made.priority) / 20_000, [0.25, 0, 0.75], atol=0.02)


def test_inspection_of_known_workload(tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,10,1\n1,20,2\n2,30,3\n")
    facts = inspect_workload(read_trace(path))
    assert facts["request_rate_per_s"] == 1.0
    assert facts["interarrival_cv"] == 0.0
    assert facts["p50_input_tokens"] == 20
    assert facts["output_tokens_per_s"] == 2.0
    write_trace(read_trace(path), tmp_path / "own.jsonl")
    assert inspect_workload(read_trace(tmp_path / "own.jsonl")) == facts
