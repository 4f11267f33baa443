"""A damaged run ends in a result or in one clear error; what contradicts itself is refused."""

import random
import re
import warnings

import numpy as np
import pytest

from simtool.cli import run
from tests.validation.recorded import copied, damage, record_all, with_columns


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return record_all(tmp_path_factory.mktemp("recorded"))


def refused(capsys, folder):
    """The one error of `simtool validate`."""
    capsys.readouterr()
    assert run(["validate", "--measured", str(folder)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert sum(line.startswith("ERROR") for line in lines) == 1
    return " ".join(lines)


def at(row, value):
    def change(column):
        changed = column.copy()
        changed[row] = value
        return changed

    return change


def plus(row, value):
    return lambda column: at(row, column[row] + value)(column)


R, S = "requests.npz", "schedule.npz"
DAMAGES = {
    "an endless step": (R, {"step_end_s": at(3, 1e300)}, "step 3 has end_s = 1e"),
    "a step long before": (R, {"step_start_s": at(0, -5.0)}, "step 0 starts at -5 s"),
    "a late send": (R, {"sent_s": at(2, 1e300)}, "request 2 was sent at 1e"),
    "a send before the arrival": (R, {"sent_s": at(2, 0.0)}, "request 2 was sent at 0 s, and arrived at"),
    "a late finish": (R, {"finish_s": at(2, 1e300)}, "request 2 finishes at 1e"),
    "steps out of order": (R, {"step_start_s": lambda column: column[::-1]}, "ends before it starts|before the step"),
    "a count that is none": (R, {"num_steps": lambda _: np.array(np.nan)}, "num_steps is nan"),
    "tokens that are none": (R, {"output_tokens": lambda c: at(1, np.nan)(c * 1.0)}, "output_tokens is nan in row 1"),
    "a step's count": (R, {"step_kv_blocks": at(2, np.nan)}, "step 2 has kv_blocks = nan"),
    "half a decode": (R, {"step_decode_requests": plus(2, 0.5)}, "step 2 has decode_requests"),
    "no blocks": (R, {"kv_blocks": lambda column: column[0]}, "kv_blocks is no list"),
    "text": (R, {"replica": lambda column: column.astype(str)}, "replica does not hold numbers"),
    "objects": (R, {"replica": lambda column: column.astype(object)}, "Object arrays cannot be loaded"),
    "an empty schedule": (S, dict.fromkeys(("step", "request", "rank", "new_tokens", "context", "samples"),
                                           lambda column: column[:0]), "its schedule is empty"),
    "an absent column": (S, {"rank": None}, "has no rank"),
    "fractions": (S, {"rank": lambda column: column + 0.5}, "not lists of whole numbers"),
    "a folded column": (S, {"rank": lambda column: column[:, None]}, "not lists of whole numbers"),
    "a step that is not there": (S, {"step": at(-1, 10_000)}, "names a step that it does not have"),
    "a negative request": (S, {"request": at(0, -1)}, "request is -1 in row 0"),
    "a rank that is not there": (S, {"rank": at(0, 7)}, "rank that the plan does not have"),
    "too many tokens in a step": (S, {"new_tokens": plus(0, 1)}, "tokens in step 0, and the step's record"),
    "tokens of nobody": (S, {"new_tokens": at(0, 0)}, "computes no token"),
    "another sample": (S, {"samples": lambda column: 1 - column}, "does not sample its output tokens"),
    "a gap in the context": (S, {"context": plus(-1, -1)}, "does not go on where the request's step before it ended"),
    "a context beyond": (S, {"context": plus(-1, 1000)}, "goes beyond the request's tokens"),
    "another request": (S, {"request": lambda column: np.roll(column, 1)}, "request"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_column_is_one_clear_error(capsys, recorded, tmp_path, name):
    file, changes, told = DAMAGES[name]
    broken = with_columns(copied(recorded[0], tmp_path / "run"), file, **changes)
    assert re.search(told, refused(capsys, broken))


def test_a_batch_above_the_plan_s_limits_is_refused(capsys, recorded, tmp_path):
    for knob, least in (("max_num_seqs", 2), ("max_num_batched_tokens", 40)):
        broken = copied(recorded[1], tmp_path / "run")
        text = (broken / "plan.json").read_text()
        for value in (8, 64):
            text = text.replace(f'"{knob}": {value}', f'"{knob}": {least}')
        (broken / "plan.json").write_text(text)
        assert f"above the plan's {knob}" in refused(capsys, broken)


@pytest.mark.parametrize("file", [R, S])
@pytest.mark.parametrize("left", [0, 40, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_error(capsys, recorded, tmp_path, file, left):
    broken = copied(recorded[0], tmp_path / "run")
    content = (broken / file).read_bytes()
    (broken / file).write_bytes(content[: int(left if left > 1 else left * len(content))])
    assert f"{file}: is no" in refused(capsys, broken)


@pytest.mark.parametrize("depth", [500, 1100, 100_000])
@pytest.mark.parametrize("file", ["execution.json", "plan.json", "trace.jsonl"])
def test_endless_nesting_is_one_clear_error(capsys, recorded, tmp_path, file, depth):
    broken = copied(recorded[0], tmp_path / "run")
    (broken / file).write_text('{"a":' * depth + "1" + "}" * depth)
    assert file in refused(capsys, broken)


def test_a_plan_file_of_other_sizes_is_one_clear_error(capsys, recorded, tmp_path):
    for old, new in (
        ('"block_size": 16', '"block_size": 1e400'),
        ('"ep": 1', '"ep": 2'),
        ('"pp": 1', f'"pp": {10**30}'),
    ):
        broken = copied(recorded[0], tmp_path / "run")
        text = (broken / "plan.json").read_text()
        assert old in text
        (broken / "plan.json").write_text(text.replace(old, new))
        refused(capsys, broken)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_damaged_ends_in_a_result_or_one_error(capsys, recorded, tmp_path, seed):
    rng = random.Random(seed)
    ended = set()
    for _ in range(12):
        broken = copied(rng.choice(recorded), tmp_path / "run")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            what = damage(broken, rng)
        code = run(["validate", "--measured", str(broken)])
        said = capsys.readouterr()
        assert code in (0, 1, 2), what
        assert code != 2 or (said.out == "" and said.err.count("ERROR") == 1), what
        ended.add(code)
    assert 2 in ended
