"""Loads and placements as files, and `simtool experts place` from end to end."""

import json
import re

import numpy as np
import pytest

from simtool.cli import run
from simtool.errors import InputError
from simtool.expert_loads import read_expert_loads
from simtool.expert_location import read_expert_location, with_other_layers, write_expert_location
from simtool.planners.experts.plan import place_experts
from simtool.planners.experts.problem import ExpertProblem
from simtool.planners.schedule.progress import Effort
from simtool.report.expert_page import expert_page
from tests.report.browser import CHROMIUM, drawn, own_text
from tests.shared_data import SHARED, needs_shared

MATRIX = "90,132,40,61\n20,107,104,64\n"
COUNTS = "domain,layer,expert,count\na,7,0,5\na,7,2,9\na,0,1,4\nb,0,1,8\n"
PLACE = ["--gpus", "2", "--replicas", "6", "--effort", "0.1"]


@pytest.fixture
def loads(tmp_path):
    path = tmp_path / "loads.csv"
    path.write_text(MATRIX)
    return path


@pytest.fixture(scope="module")
def plan():
    loads = np.random.default_rng(0).pareto(1.5, (3, 16)) + 0.1
    return place_experts(ExpertProblem(loads=loads, gpus=4, slots=5), Effort(limit=0.0))


def test_a_matrix_is_read_line_by_line(loads):
    table = read_expert_loads(loads)
    assert table.layers == (0, 1)
    assert table.loads.tolist() == [[90, 132, 40, 61], [20, 107, 104, 64]]


def test_counts_are_read_by_name_and_chosen_by_column(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text(COUNTS)
    table = read_expert_loads(path, {"domain": "a"})
    assert table.layers == (0, 7)
    assert table.loads.tolist() == [[0, 4, 0], [5, 0, 9]]
    with pytest.raises(InputError, match="once more"):
        read_expert_loads(path)


@needs_shared
def test_published_counts_are_read():
    path = SHARED / "data" / "moe_routing" / "olmoe_mixtral" / "expert_counts.csv"
    table = read_expert_loads(path, {"model": "olmoe-1b-7b", "domain": "c4", "selection": "topk"})
    assert table.loads.shape == (3, 64)
    assert table.loads.sum(axis=1).tolist() == [208896 * 8] * 3


@pytest.mark.parametrize(
    ("text", "where", "word"),
    [
        ("", {}, "no numbers"),
        ("1,2\n3\n", {}, "other numbers"),
        ("1,-2\n", {}, "no load"),
        ("1,nan\n", {}, "no load"),
        ("layer,expert\n0,1\n", {}, "no column count"),
        (COUNTS, {"city": "a"}, "no column city"),
        (COUNTS, {"domain": "z"}, "no such lines"),
        ("layer,expert,count\n0,1e9,3\n", {}, "no layer, expert or window"),
        ("layer,expert,count\n0,999999,3\n", {}, "no layer, expert or window"),
        ("layer,expert,count\n0,1\n", {}, "2 of 3 values"),
        (MATRIX, {"domain": "a"}, "no columns"),
        ('1,"2\n', {}, "not CSV"),
    ],
)
def test_bad_loads_are_refused(tmp_path, text, where, word):
    path = tmp_path / "loads.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=word):
        read_expert_loads(path, where)


def test_a_placement_is_read_as_it_was_written(tmp_path):
    phy2log = np.array([[0, 1, 2, 0], [2, 1, 0, 1]])
    write_expert_location(phy2log, tmp_path / "map.json")
    assert json.loads((tmp_path / "map.json").read_text()) == {"physical_to_logical_map": phy2log.tolist()}
    assert (read_expert_location(tmp_path / "map.json") == phy2log).all()


def test_layers_that_were_not_planned_hold_experts_in_turn():
    every = with_other_layers(np.array([[2, 1, 0, 1]]), (1,), 3, 3)
    assert every.tolist() == [[0, 1, 2, 0], [2, 1, 0, 1], [0, 1, 2, 0]]
    with pytest.raises(InputError, match="leave out layer 1"):
        with_other_layers(np.array([[2, 1, 0, 1]]), (1,), 3, 1)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ("[]", "no list of layers"),
        ('{"physical_to_logical_map": []}', "no list of layers"),
        ('{"physical_to_logical_map": [[0, 1], [0]]}', "unlike numbers"),
        ('{"physical_to_logical_map": [[0, -1]]}', "no whole numbers"),
        ('{"physical_to_logical_map": [[0, true]]}', "no whole numbers"),
        ("[" * 100000, "not JSON"),
    ],
)
def test_bad_placements_are_refused(tmp_path, text, word):
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(InputError, match=word):
        read_expert_location(path)


def test_the_command_prints_a_table_and_writes_the_map(capsys, loads, tmp_path):
    out, page = tmp_path / "map.json", tmp_path / "page.html"
    assert run(["experts", "place", str(loads), *PLACE, "--out", str(out), "--page", str(page)]) == 0
    told = capsys.readouterr()
    for word in ("greedy", "planned", "bound", "gap", "of the best there is"):
        assert word in told.out
    assert told.err == ""
    assert read_expert_location(out).shape == (2, 6)
    assert "Expert placement" in page.read_text(encoding="utf-8")


def test_the_command_counts_moves_from_a_present_placement(capsys, loads, tmp_path):
    out = tmp_path / "map.json"
    assert run(["experts", "place", str(loads), *PLACE, "--out", str(out)]) == 0
    capsys.readouterr()
    assert run(["experts", "place", str(loads), *PLACE, "--present", str(out), "--expert-bytes", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [layer["moved_bytes"]["objective"] for layer in found["layers"]] == [0, 0]
    assert found["physical_to_logical_map"] == read_expert_location(out).tolist()
    assert 0 <= found["gap"] < 1


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--gpus", "0"], "1 or more"),
        (["--gpus", "4", "--replicas", "6"], "do not fill 4 GPUs evenly"),
        (["--gpus", "2", "--replicas", "2"], "do not hold 4 experts"),
        (["--gpus", "2", "--nodes", "2", "--groups", "3"], "equal groups"),
        (["--gpus", "2", "--where", "domain"], "COLUMN=VALUE"),
        (["--gpus", "2", "--present", "absent.json"], "cannot be read"),
    ],
)
def test_bad_questions_give_one_error(capsys, loads, flags, word):
    assert run(["experts", "place", str(loads), *flags]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("ERROR") == 1
    assert word in " ".join(told.err.split())


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_the_page_without_an_error(plan, tmp_path):
    dom = drawn(expert_page(plan, (3, 4, 9)), tmp_path)
    assert 'data-errors=""' in dom
    assert 'data-plots="2"' in dom
    assert len(re.findall(r'class="plot js-plotly-plot"', dom)) == 2
    assert len(re.findall(r'class="hm"', dom)) == 3  # experts, and GPUs before and after
    assert "layer 9" in dom


def test_the_page_fetches_nothing(plan):
    own = own_text(expert_page(plan, (0, 1, 2)))
    assert len(own) < 1e5
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", own)
    assert not re.search("https?:/", own)
