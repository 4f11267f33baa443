"""Studies of rebalancing: the cheapest way is never beaten, ways by the clock know only the past, and the command."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.cli import run
from simtool.errors import InputError
from simtool.expert_loads import read_load_windows
from simtool.hardware.links import Link
from simtool.models.routing.observed import window_loads
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import dirichlet
from simtool.models.routing.trace_file import write_routing
from simtool.planners.experts.problem import ExpertProblem
from simtool.planners.experts.rebalance import Window
from simtool.planners.experts.rebalance_study import study_rebalancing
from simtool.planners.schedule.progress import Effort
from simtool.report.rebalance_page import rebalance_page
from tests.report.browser import CHROMIUM, drawn, own_text

NEAR = Link(name="near", kind="nvlink", bytes_per_s=100.0, latency_s=0.5, reduces=False, source="made up")
ASK = ["--gpus", "2", "--replicas", "6", "--effort", "0.01", "--expert-bytes", "1e6", "--experts-ms", "2"]


def studied(loads, steps=10.0, expert_bytes=50.0):
    """loads: [windows, layers, experts]."""
    problem = ExpertProblem(loads=loads[0], gpus=4, slots=2, expert_bytes=expert_bytes)
    windows = [Window(loads=one, steps=steps) for one in loads]
    return study_rebalancing(problem, windows, (NEAR, NEAR), 0.1, Effort(limit=0.01))


def csv_of(loads):
    rows = [f"{w},{layer},{e},{loads[w, layer, e]}" for w, layer, e in np.ndindex(loads.shape)]
    return "\n".join(["window,layer,expert,count", *rows])


@pytest.fixture(scope="module")
def loads():
    return np.random.default_rng(0).pareto(1.2, (4, 2, 6)) + 0.1


@pytest.fixture(scope="module")
def study(loads):
    return studied(loads)


@given(seed=st.integers(0, 2**31), windows=st.integers(1, 5), size=st.sampled_from([0.0, 5.0, 5000.0]))
@settings(max_examples=6, deadline=None)
def test_no_way_of_moving_beats_the_cheapest(seed, windows, size):
    found = studied(np.random.default_rng(seed).pareto(1.2, (windows, 1, 6)) + 0.1, expert_bytes=size)
    assert all(found.best.seconds <= one.seconds * (1 + 1e-12) for one in found.schedules)
    assert found.best.moves <= windows - 1  # the first window's own placement is there at first
    for one in found.schedules:
        moving = sum(found.moving_s[a, b] for a, b in zip((0, *one.chosen), one.chosen, strict=False))
        running = sum(found.run_s[window, held] for window, held in enumerate(one.chosen))
        assert one.seconds == pytest.approx(moving + running)


def test_free_moves_follow_every_window_and_dear_ones_never_pay(loads):
    dear = studied(loads, expert_bytes=1e9)
    # a message's latency is all that a free move costs, so that windows are made long
    free = studied(loads, steps=1e6, expert_bytes=0.0)
    assert free.best.seconds == pytest.approx(free.run_s.min(axis=1).sum(), rel=1e-4)
    assert dear.best.moves == 0
    assert dear.best.seconds == dear.stay.seconds


def test_ways_by_the_clock_have_placements_of_windows_before(study):
    for one in study.schedules:
        if one.every:
            for window, held in enumerate(one.chosen):
                known = study.own[: window // one.every * one.every]
                assert held == (known[-1] if known else 0)


def test_a_window_pays_back_its_move_at_the_break_even(study):
    for window in range(1, len(study.windows)):
        seconds, steps = study.move_before(window)
        before, own = study.best.chosen[window - 1], study.own[window]
        if before != own:
            gained = (study.run_s[window, before] - study.run_s[window, own]) / study.windows[window].steps
            assert steps == float("inf") if gained <= 0 else steps * gained == pytest.approx(seconds)


def test_even_loads_take_the_seconds_that_were_given():
    found = studied(np.ones((3, 2, 8)))
    assert found.stay.seconds == pytest.approx(3 * 10.0 * 0.1)
    assert found.over_mean(0, 0) == pytest.approx(1.0)
    assert found.best.moves == 0


def test_a_trace_is_cut_into_windows_of_mean_steps():
    rng = np.random.default_rng(0)
    shape = MoeShape(layers=(0, 3), num_experts=8, top_k=2)
    trace = sample_trace(dirichlet(shape, 0.5, rng, drift=0.1), sequences=4, output_tokens=10, rng=rng)
    found, steps = window_loads(trace, 3)
    assert found.shape == (3, 2, 8)
    assert steps.sum() == 10
    assert np.allclose(found.sum(axis=2), 4 * 2)  # tokens of a step, two experts each
    assert (found * steps[:, None, None]).sum() == pytest.approx(trace.experts.size)
    with pytest.raises(InputError, match="10 steps"):
        window_loads(trace, 11)


def test_windows_are_read_by_their_numbers(tmp_path):
    path = tmp_path / "loads.csv"
    path.write_text("window,layer,expert,count\n5,1,0,3\n2,1,1,4\n")
    table = read_load_windows(path)
    assert (table.windows, table.layers) == ((2, 5), (1,))
    assert table.loads.tolist() == [[[0, 4]], [[3, 0]]]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("1,2\n", "no column window"),
        ("window,layer,expert,count\n0,1,2,3\n0,1,2,4\n", "window 0, layer 1, expert 2 once more"),
        ("window,layer,expert,count\n", "no such lines"),
        ("window,layer,expert\n0,0,0\n", "no column count"),
        ("window,layer,expert,count\n16383,0,16383,1\n" + "".join(f"{w},0,0,1\n" for w in range(5000)), "more than"),
    ],
)
def test_bad_windows_are_refused(tmp_path, text, word):
    path = tmp_path / "loads.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=word):
        read_load_windows(path)


def test_the_command_tells_when_moves_pay(capsys, loads, tmp_path):
    path, page = tmp_path / "loads.csv", tmp_path / "page.html"
    path.write_text(csv_of(loads))
    assert run(["experts", "rebalance", str(path), *ASK, "--page", str(page)]) == 0
    told = capsys.readouterr()
    assert "pays after" in told.out
    assert "less time of experts" in told.out
    assert "known ahead" in page.read_text(encoding="utf-8")
    assert run(["experts", "rebalance", str(path), *ASK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["window"] for row in found["windows"]] == [0, 1, 2, 3]
    assert [row["steps"] for row in found["windows"]] == [3000.0] * 4
    assert found["schedules"][-1]["seconds"] <= found["schedules"][0]["seconds"]
    assert all(len(held) == 2 and len(held[0]) == 6 for held in found["placements"])


def test_the_command_takes_traces_and_sources(capsys, tmp_path):
    rng = np.random.default_rng(0)
    shape = MoeShape(layers=(0, 3), num_experts=4, top_k=2)
    path = tmp_path / "trace.npz"
    write_routing(sample_trace(dirichlet(shape, 0.5, rng), sequences=4, output_tokens=10, rng=rng), path)
    assert run(["experts", "rebalance", str(path), *ASK, "--windows", "2", "--window-steps", "7", "--json"]) == 0
    assert [row["steps"] for row in json.loads(capsys.readouterr().out)["windows"]] == [7.0, 7.0]
    assert (
        run(
            [
                "experts",
                "rebalance",
                "mixtral-8x7b",
                *ASK,
                "--replicas",
                "8",
                "--tokens",
                "256",
                "--batch",
                "8",
                "--json",
            ]
        )
        == 0
    )
    assert len(json.loads(capsys.readouterr().out)["windows"]) == 8


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--window-steps", "-1"], "must be from 1"),
        (["--experts-ms", "0"], "above 0"),
        (["--link", "nonsense"], "link catalogue"),
        (["--effort", "0"], "above 0"),
        (["--expert-bytes", "-1"], "from 0"),
    ],
)
def test_bad_questions_give_one_error(capsys, loads, tmp_path, flags, word):
    path = tmp_path / "loads.csv"
    path.write_text(csv_of(loads))
    assert run(["experts", "rebalance", str(path), *ASK, *flags]) == 2
    assert word in " ".join(capsys.readouterr().err.split())


def test_too_many_windows_are_refused(loads):
    with pytest.raises(InputError, match="windows"):
        studied(np.repeat(loads[:1], 65, axis=0))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_the_page_without_an_error(study, tmp_path):
    dom = drawn(rebalance_page(study, (0, 1, 2, 3), (3, 9)), tmp_path)
    assert 'data-errors=""' in dom
    assert 'data-plots="2"' in dom
    assert len(re.findall(r'class="hm"', dom)) == 1
    assert "window 3" in dom


def test_the_page_fetches_nothing(study):
    own = own_text(rebalance_page(study, (0, 1, 2, 3), (0, 1)))
    assert len(own) < 1e5
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", own)
    assert not re.search("https?:/", own)
