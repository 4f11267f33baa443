"""simtool routing: sources are sampled, files are read, and what is wrong is one error."""

import json

import numpy as np
import pytest

from simtool.cli import run
from simtool.models.routing.trace_file import read_routing
from tests.cli.test_bad_input import refuse

SMALL = ["--tokens", "400", "--batch", "8"]


def inspected(capsys, *words):
    assert run(["routing", "inspect", *words, *SMALL, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_source_is_told_in_few_lines(capsys):
    assert run(["routing", "inspect", "zipf:1.0", "--model", "mixtral-8x7b", "--ep", "4", *SMALL]) == 0
    told = capsys.readouterr().out
    for words in ("32 layers of 8 experts", "experts that a batch needs", "busiest rank", "hottest experts"):
        assert words in told
    assert max(map(len, told.splitlines())) < 130


@pytest.mark.parametrize(
    "source", ["uniform", "zipf:1.2,locality=0.5", "dirichlet:0.3,drift=0.1", "uniform,classes=4", "mixtral-8x7b/c4"]
)
def test_every_source_stretches_over_the_model(capsys, source):
    facts = inspected(capsys, source, "--model", "mixtral-8x7b")
    assert (facts["layers"], facts["experts"], facts["top_k"], facts["source"]) == (32, 8, 2, source)
    unique = facts["measures"]["unique_experts"]
    assert 2 <= unique["least"] <= unique["mean"] <= unique["most"] <= 8
    if "drift" in source:  # at any one time fewer experts are popular than over all
        assert unique["mean"] < unique["independent"]
    else:
        assert unique["mean"] == pytest.approx(unique["independent"], rel=0.05)


def test_locality_and_classes_show(capsys):
    plain, local = (inspected(capsys, s, "--model", "mixtral-8x7b") for s in ("uniform", "uniform,locality=0.7"))
    name = "reused_from_token_before"
    assert local["measures"][name]["mean"] > plain["measures"][name]["mean"] + 0.3
    tied = inspected(capsys, "uniform,classes=8,affinity=2", "--model", "mixtral-8x7b")
    name = "known_from_layer_before"
    assert tied["measures"][name]["least"] > 3 * tied["measures"][name]["independent"]


def test_a_fitted_source_alone_has_the_counted_layers(capsys):
    facts = inspected(capsys, "olmoe-1b-7b")
    assert facts["layers"] == 3
    assert {row["layer"] for row in facts["hottest"]} <= {0, 7, 15}


@pytest.mark.parametrize("suffix", [".npz", ".jsonl"])
def test_a_sampled_trace_is_inspected_as_its_source(capsys, tmp_path, suffix):
    target, model = tmp_path / f"t{suffix}", ["--model", "mixtral-8x7b"]
    assert run(["routing", "sample", "zipf:0.8", str(target), *model, *SMALL, "--prompt-tokens", "3"]) == 0
    assert "592" not in capsys.readouterr().out
    trace = read_routing(target)
    assert (trace.tokens, int(trace.prefill.sum()), trace.layers) == (424, 24, tuple(range(32)))
    from_file = inspected(capsys, str(target))
    assert from_file["batches"] == 50
    again = tmp_path / "again.npz"
    assert run(["routing", "sample", str(target), str(again)]) == 0
    assert np.array_equal(read_routing(again).experts, trace.experts)


def test_same_seed_same_trace(tmp_path, capsys):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        words = [str(tmp_path / f"{name}.npz"), "--model", "mixtral-8x7b", *SMALL, "--seed", seed]
        assert run(["routing", "sample", "dirichlet:0.5,drift=0.2,locality=0.3", *words]) == 0
    a, b, c = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nonsense"], "is no routing source"),
        (["uniform"], "needs to know how many experts"),
        (["uniform:3", "--model", "mixtral-8x7b"], "takes no number"),
        (["zipf", "--model", "mixtral-8x7b"], "'' is no number"),
        (["zipf:nan", "--model", "mixtral-8x7b"], "no number of use"),
        (["zipf:99", "--model", "mixtral-8x7b"], "from 0 to 8"),
        (["dirichlet:0", "--model", "mixtral-8x7b"], "concentration"),
        (["zipf:1,drift=0.1", "--model", "mixtral-8x7b"], "drift is of a Dirichlet"),
        (["uniform,locality=1", "--model", "mixtral-8x7b"], "below 1"),
        (["uniform,classes=1.5", "--model", "mixtral-8x7b"], "whole number"),
        (["uniform,affinity=1", "--model", "mixtral-8x7b"], "affinity is of classes"),
        (["uniform,speed=1", "--model", "mixtral-8x7b"], "no option 'speed'"),
        (["uniform,locality=0.1,locality=0.2", "--model", "mixtral-8x7b"], "twice"),
        (["mixtral-8x7b,classes=2"], "has classes already"),
        (["mixtral-8x7b", "--model", "deepseek-v3"], "the model has 8 of 256"),
        (["uniform", "--model", "llama-3.1-8b"], "no routed experts"),
        (["mixtral-8x7b", "--ep", "3"], "must divide 8 experts"),
        (["absent.npz"], "no such file"),
    ],
)
def test_what_cannot_be_asked_is_told(capsys, words, told):
    assert told in refuse(capsys, "routing", "inspect", *words)


def test_a_trace_too_short_for_a_batch_is_told(capsys, tmp_path):
    assert run(["routing", "sample", "mixtral-8x7b", str(tmp_path / "t.npz"), *SMALL]) == 0
    capsys.readouterr()
    assert "too few tokens" in refuse(capsys, "routing", "inspect", tmp_path / "t.npz", "--batch", "99")


def test_a_bad_target_is_told_before_sampling(capsys, tmp_path):
    assert "suffix" in refuse(capsys, "routing", "sample", "mixtral-8x7b", tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []
