"""A workload written and read again is the same workload."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.traces import Sessions, SharedPrefixes, read_trace, synthesise, write_trace
from simtool.workload import Workload


def assert_same(first: Workload, second: Workload) -> None:
    for field in fields(Workload):
        left, right = getattr(first, field.name), getattr(second, field.name)
        assert np.array_equal(left, right), field.name
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, field.name


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 60),
    turns=st.integers(0, 4),
    prefixes=st.integers(0, 3),
    shares=st.sampled_from([(), (1.0, 3.0)]),
    suffix=st.sampled_from(["jsonl", "jsonl.gz"]),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, turns: int, prefixes: int, shares, suffix: str
) -> None:
    workload = synthesise(
        num_requests=count,
        input_len="lognormal:80:1",
        output_len="uniform:1:20",
        rng=np.random.default_rng(seed),
        request_rate=3.0,
        sessions=Sessions(turns=turns, think_s=1.5) if turns else None,
        prefixes=SharedPrefixes(count=prefixes, tokens=40) if prefixes else None,
        priority_shares=shares,
        max_concurrency=seed % 3,
        warmup_requests=count // 3,
    )
    path = tmp_path_factory.mktemp("trace") / f"t.{suffix}"
    write_trace(workload, path)
    assert_same(workload, read_trace(path))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_nothing_is_left_where_nothing_can_be_written(tmp_path: Path) -> None:
    workload = synthesise(num_requests=3, input_len=5, output_len=5, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="cannot be written"):
        write_trace(workload, tmp_path / "absent" / "t.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError):
        write_trace(workload, tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
