"""Routing traces come back from a file as they were, and every damage is one clear error."""

import gzip
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from simtool.errors import InputError
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import uniform
from simtool.models.routing.trace_file import read_routing, write_routing

SHAPE = MoeShape(layers=(1, 3), num_experts=8, top_k=2)
COLUMNS = ("experts", "sequence", "position", "step", "prefill")


def sampled(sequences=3, prompt=2, output=4):
    rng = np.random.default_rng(0)
    return sample_trace(
        uniform(SHAPE), sequences=sequences, prompt_tokens=prompt, output_tokens=output, rng=rng, layers=SHAPE.layers
    )


def same(one, other):
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in COLUMNS)
    assert all(getattr(one, name).dtype == getattr(other, name).dtype for name in COLUMNS)
    assert (one.num_experts, one.layers) == (other.num_experts, other.layers)


@settings(max_examples=20, deadline=None)
@given(some.integers(1, 5), some.integers(0, 3), some.integers(1, 5), some.sampled_from([".npz", ".jsonl"]))
def test_a_trace_comes_back_as_it_was(tmp_path_factory, sequences, prompt, output, suffix):
    trace, path = sampled(sequences, prompt, output), tmp_path_factory.mktemp("traces") / f"t{suffix}"
    write_routing(trace, path)
    same(read_routing(path), trace)


@pytest.mark.parametrize("suffix", [".npz", ".jsonl"])
def test_a_trace_without_tokens_is_one(tmp_path, suffix):
    full = sampled()
    empty = replace(full, **{name: getattr(full, name)[:0] for name in COLUMNS})
    write_routing(empty, tmp_path / f"t{suffix}")
    same(read_routing(tmp_path / f"t{suffix}"), empty)


def test_packed_lines_are_read(tmp_path):
    write_routing(sampled(), tmp_path / "t.jsonl")
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress((tmp_path / "t.jsonl").read_bytes()))
    same(read_routing(tmp_path / "t.jsonl.gz"), sampled())


def test_rows_in_any_order_are_put_in_order(tmp_path):
    trace, path = sampled(), tmp_path / "t.jsonl"
    write_routing(trace, path)
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[::-1]]) + "\n")
    same(read_routing(path), trace)


DAMAGES = {
    "out of range": (lambda row: row["experts"][1].__setitem__(0, 8), "has expert 8"),
    "negative": (lambda row: row["experts"][1].__setitem__(0, -1), "has expert -1"),
    "duplicate": (lambda row: row.update(experts=[[3, 3], [0, 1]]), "layer 1 has expert 3 twice"),
    "ragged": (lambda row: row.update(experts=[[0, 1], [2]]), "line 4: experts are not 2 layers of 2"),
    "a layer short": (lambda row: row.update(experts=[[0, 1]]), "line 4: experts are not 2 layers of 2"),
    "NaN": (lambda row: row.update(experts=[[0, float("nan")], [0, 1]]), "has expert nan"),
    "a fraction": (lambda row: row.update(experts=[[0, 1.5], [0, 1]]), "has expert 1.5"),
    "text": (lambda row: row.update(experts="01"), "line 4: experts are not"),
    "huge": (lambda row: row.update(experts=[[0, 10**30], [0, 1]]), "line 4: experts are not"),
    "step NaN": (lambda row: row.update(step=float("nan")), "step"),
    "step below 0": (lambda row: row.update(step=-1), "step"),
    "prefill 2": (lambda row: row.update(prefill=2), "prefill is 2"),
    "key missing": (lambda row: row.pop("step"), "key 'step' is missing"),
    "key unknown": (lambda row: row.update(layer=1), "key 'layer' is unknown"),
    "twice": (lambda row: row.update(position=1, step=0), "twice in step 0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_line_is_one_error(tmp_path, damage):
    path = tmp_path / "t.jsonl"
    write_routing(sampled(), path)
    header, *rows = path.read_text().splitlines()
    row = json.loads(rows[2])
    change, told = DAMAGES[damage]
    change(row)
    rows[2] = json.dumps(row)
    path.write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(InputError, match=told):
        read_routing(path)


@pytest.mark.parametrize("keep", [0, 30, 400, -40, -200])
@pytest.mark.parametrize("suffix", [".npz", ".jsonl"])
def test_a_truncated_file_is_one_error(tmp_path, suffix, keep):
    path = tmp_path / f"t{suffix}"
    write_routing(sampled(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError):
        read_routing(path)


def test_lines_that_are_missing_are_counted(tmp_path):
    path = tmp_path / "t.jsonl"
    write_routing(sampled(), path)
    path.write_text("\n".join(path.read_text().splitlines()[:-2]) + "\n")
    with pytest.raises(InputError, match="has 16 tokens and its header says 18"):
        read_routing(path)


@pytest.mark.parametrize(
    ("name", "column", "told"),
    [
        ("experts", None, "has no experts"),
        ("experts", np.zeros((18, 2), np.int16), "experts has 2 dimensions"),
        ("experts", np.full((18, 2, 2), 300, np.int64), "has expert 300"),
        ("experts", np.full((18, 2, 2), np.nan), "has expert nan"),
        ("experts", np.zeros((18, 2, 2), np.int16), "has expert 0 twice"),
        ("experts", np.zeros((17, 2, 2), np.int16), "entries for 17 tokens"),
        ("layers", np.array([3, 1]), "do not ascend"),
        ("layers", np.array([1]), "layers are 1"),
        ("num_experts", np.array(2**20), "num_experts is 1.04858e"),
        ("num_experts", np.array([8]), "num_experts has 1 dimensions"),
        ("step", np.full(18, np.inf), "step is inf"),
        ("sequence", np.array(["a"] * 18), "does not hold numbers"),
    ],
)
def test_a_damaged_column_is_one_error(tmp_path, name, column, told):
    path = tmp_path / "t.npz"
    write_routing(sampled(), path)
    with np.load(path) as archive:
        columns = dict(archive)
    columns = {key: value for key, value in columns.items() if key != name}
    np.savez(path, **columns, **({} if column is None else {name: column}))
    with pytest.raises(InputError, match=told):
        read_routing(path)


def test_no_pickle_is_read(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, experts=np.array([object()], dtype=object))
    with pytest.raises(InputError):
        read_routing(path)


@settings(max_examples=60, deadline=None)
@given(data=some.data())
def test_no_byte_changed_ends_in_anything_but_an_error_or_a_trace(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / data.draw(some.sampled_from(["t.npz", "t.jsonl"]))
    write_routing(sampled(2, 1, 2), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(some.integers(1, 4))):
        content[data.draw(some.integers(0, len(content) - 1))] = data.draw(some.integers(0, 255))
    path.write_bytes(content)
    try:
        trace = read_routing(path)
    except InputError:
        return
    assert trace.experts.shape == (trace.tokens, len(trace.layers), trace.top_k)
    assert trace.experts.min(initial=0) >= 0
    assert trace.experts.max(initial=0) < trace.num_experts


def test_a_wrong_suffix_or_folder_is_told_before_writing(tmp_path):
    with pytest.raises(InputError, match="suffix"):
        write_routing(sampled(), tmp_path / "t.csv")
    with pytest.raises(InputError, match="does not exist"):
        write_routing(sampled(), tmp_path / "absent" / "t.npz")
    with pytest.raises(InputError, match="no such file"):
        read_routing(tmp_path / "absent.jsonl")


def test_a_single_array_is_no_trace(tmp_path):
    buffer, path = io.BytesIO(), tmp_path / "t.npz"
    np.save(buffer, np.zeros(3))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="no zip archive"):
        read_routing(path)
