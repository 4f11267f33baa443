"""`simtool offload walk`: policies side by side on a real model's prices, and the page."""

import json
import re

import numpy as np
import pytest

from simtool.cli import run
from simtool.errors import InputError
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import zipf
from simtool.models.routing.trace_file import write_routing
from simtool.offloading import OffloadQuestion, walk_policies
from simtool.offloads import parse_offload
from simtool.report.offload_page import offload_page
from tests.report.browser import CHROMIUM, drawn, own_text

SHAPE = MoeShape(layers=tuple(range(32)), num_experts=8, top_k=2)
POLICIES = ("on-demand,slots=2", "lru,slots=2", "lru,slots=3", "speculative,slots=2", "static-cpu,slots=2")


@pytest.fixture(scope="module")
def routing(tmp_path_factory):
    """A recorded trace of Mixtral's shape: a file is read faster than a source is sampled."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("routing") / "trace.npz"
    write_routing(sample_trace(zipf(SHAPE, 0.5, rng), sequences=2, output_tokens=40, rng=rng), path)
    return str(path)


@pytest.fixture(scope="module")
def question(routing):
    return OffloadQuestion(model="mixtral-8x7b", device="a100-40g", routing=routing, steps=40)


@pytest.fixture(scope="module")
def found(question):
    return walk_policies(question, [parse_offload(text) for text in POLICIES])


def test_more_slots_hit_more_and_no_policy_passes_the_bound(found):
    by_name = dict(zip(POLICIES, found, strict=True))
    assert by_name["lru,slots=3"].use.hit_rate > by_name["lru,slots=2"].use.hit_rate
    assert by_name["lru,slots=3"].tokens_per_s > by_name["lru,slots=2"].tokens_per_s
    for one in found:
        needs = one.use.needed.sum()
        elsewhere = one.use.loads.sum() + one.use.cpu.sum()
        resident = 1.0 if one.offload.policy in ("on-demand", "static-cpu") else 0.0  # they begin with full slots
        assert 1 - elsewhere / needs <= one.most_hits + resident * 32 * one.offload.slots / needs
        assert one.use.end_s[-1] == pytest.approx(40 / one.tokens_per_s)
        assert one.fits


def test_steps_take_the_dense_part_what_they_compute_and_their_stalls(found):
    """Each cause is told where it belongs: only what prefetches waits for late ones, only the CPU's waits for it."""
    by_name = dict(zip(POLICIES, found, strict=True))
    waits = {name: one.use.stall_s.sum(axis=0) > 0 for name, one in by_name.items()}
    assert waits["lru,slots=2"].tolist() == [True, False, False]
    assert waits["speculative,slots=2"][1]
    assert waits["static-cpu,slots=2"].tolist() == [False, False, True]
    for one in found:
        dense = (one.use.end_s - one.use.start_s) - one.use.stall_s.sum(axis=1)
        assert dense.min() > 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"device": "2xh200"}, "one device|not a cluster|not in"),
        ({"steps": 41}, "smaller|requests"),
        ({"batch": 3}, "2 requests"),
        ({"context": 0}, "from 1 to"),
        ({"model": "llama-3-8b"}, "no routed experts"),
    ],
)
def test_bad_questions_are_refused(question, changes, word):
    from dataclasses import replace

    with pytest.raises(InputError, match=word):
        walk_policies(replace(question, **changes), [parse_offload("lru,slots=2")])


def test_the_command_prints_one_row_a_way(capsys, routing, tmp_path):
    page = tmp_path / "page.html"
    flags = ["--device", "a100-40g", "--routing", routing, "--steps", "20"]
    ask = ["offload", "walk", "mixtral-8x7b", *flags, "--policy", "lru", "--policy", "static-cpu,slots=2"]
    assert run([*ask, "--slots", "2,3", "--page", str(page)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert len(re.findall(r"^ (?:lru|static-cpu) ", told.out, re.MULTILINE)) == 3
    assert "Memory against speed" in page.read_text(encoding="utf-8")
    assert run([*ask, "--json"]) == 0
    walks = json.loads(capsys.readouterr().out)["walks"]
    assert [(one["offload"]["policy"], one["offload"]["slots"]) for one in walks] == [("lru", 2), ("static-cpu", 2)]
    assert all(0 <= one["hit_rate"] <= 1 and one["output_throughput"] > 0 for one in walks)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--policy", "nonsense"], "no policy"),
        (["--policy", "none"], "0 ways|slots"),
        (["--slots", "x"], "number"),
        (["--slots", "9"], "8 experts"),
        (["--slots", ",".join(str(n) for n in range(101))], "from 1 to 100"),
    ],
)
def test_bad_flags_give_one_error(capsys, routing, flags, word):
    assert run(["offload", "walk", "mixtral-8x7b", "--device", "h200", "--routing", routing, *flags]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("ERROR") == 1
    assert re.search(word, " ".join(told.err.split()))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_the_page_without_an_error(question, found, tmp_path):
    dom = drawn(offload_page(question, found), tmp_path)
    assert 'data-errors=""' in dom
    assert 'data-plots="4"' in dom
    assert len(re.findall(r'class="plot js-plotly-plot"', dom)) == 4


def test_the_page_fetches_nothing(question, found):
    own = own_text(offload_page(question, found))
    assert len(own) < 2e5
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", own)
    assert not re.search("https?:/", own)
