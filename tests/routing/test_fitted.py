"""Fits of token classes: what is known is found back, popularity is kept, what is shipped agrees with the counts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from simtool.calibration.fit_classes import fit_classes
from simtool.calibration.fit_routing import divergence, fit_routing, information, main, report_lines, with_popularity
from simtool.calibration.routing_counts import RoutingCounts, pooled, read_routing_counts
from simtool.errors import InputError
from simtool.models.routing.fitted import fitted_source, load_routing, routing_json, shipped_routing
from simtool.models.routing.inclusion import source_inclusion
from simtool.models.routing.observed import correlation, layer_pairs, popularity
from simtool.models.routing.source import with_classes, zipf
from tests.routing.making import shape_of, trace_of
from tests.shared_data import SHARED, needs_shared

TABLES = SHARED / "data" / "moe_routing" / "olmoe_mixtral"


def made_pairs(classes=3, experts=8, top_k=2, seed=0):
    """Pair tables of a known mixture."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(classes, 5.0))
    laws = rng.dirichlet(np.full(experts, 0.6), (3, classes))
    flat = 1.0 / experts  # mixed in, so that no expert takes more than 0.9 / top_k of the choices
    laws = flat + (laws - flat) * np.minimum(1.0, (0.9 / top_k - flat) / (laws.max(axis=2, keepdims=True) - flat))
    return np.round(1e6 * np.einsum("z,lzi,lzj->lij", share, laws[:-1], laws[1:]))


def made_counts(domain, seed):
    pairs = made_pairs(seed=seed)
    chosen = np.concatenate((pairs.sum(axis=2), pairs[-1:].sum(axis=1)))
    tokens = int(chosen[0].sum()) // 2
    return RoutingCounts(
        model="made", domain=domain, layers=(0, 2, 5), tokens=tokens, top_k=2, chosen=chosen, pairs=pairs
    )


@settings(max_examples=10, deadline=None)
@given(some.integers(0, 50))
def test_the_pairs_of_a_known_mixture_are_found(seed):
    pairs = made_pairs(seed=seed)
    law = fit_classes(pairs, 8, 2, np.random.default_rng(0)).pairs()
    assert (divergence(pairs, law) < 0.15 * information(pairs) + 2e-3).all()


@settings(max_examples=15, deadline=None)
@given(some.integers(0, 50), some.integers(1, 6), some.integers(1, 3))
def test_a_fit_keeps_popularity_and_chooses_no_expert_twice(seed, classes, top_k):
    pairs = made_pairs(seed=seed, top_k=3)
    fitted = fit_classes(pairs, classes, top_k, np.random.default_rng(seed))
    assert fitted.chosen.max() * top_k <= 1.0
    assert np.allclose(fitted.chosen.sum(axis=2), 1.0)
    wanted = pairs.sum(axis=2) / pairs.sum(axis=(1, 2))[:, None]
    assert np.allclose(np.einsum("z,lze->le", fitted.share, fitted.chosen)[:-1], wanted, atol=2e-4)


def test_one_class_is_independence():
    pairs = made_pairs()
    law = fit_classes(pairs, 1, 2, np.random.default_rng(0)).pairs()
    assert divergence(pairs, law) == pytest.approx(information(pairs), rel=1e-3)


def test_popularity_can_be_exchanged_without_losing_what_ties_layers():
    pairs, other = made_pairs(seed=1), made_pairs(seed=2)
    law = pairs / pairs.sum(axis=(1, 2), keepdims=True)
    moved = with_popularity(law, other)
    assert np.allclose(moved.sum(axis=1), other.sum(axis=1) / other.sum(axis=(1, 2))[:, None], atol=1e-6)
    odds = [t[:, 0, 0] * t[:, 1, 1] / (t[:, 0, 1] * t[:, 1, 0]) for t in (law, moved)]
    assert np.allclose(*odds)


def test_a_fit_of_several_domains_can_be_written_and_read(tmp_path):
    fits = fit_routing([made_counts("one", 1), made_counts("two", 2), made_counts("three", 1)])
    assert [fit.name for fit in fits] == ["made", "made/one", "made/two", "made/three"]
    path = tmp_path / "fits.json"
    path.write_text(routing_json(fits))
    read = load_routing(path)
    assert [fit.name for fit in read] == [fit.name for fit in fits]
    assert np.allclose(read[1].rates, fits[1].rates, rtol=1e-4)
    assert fits[1].quality["kl"] < fits[1].quality["information"]
    assert fits[1].quality["inclusion_error"] < 1e-3
    path.write_text(path.read_text().replace('"top_k"', '"topk"'))
    with pytest.raises(InputError, match="not complete: 'top_k'"):
        load_routing(path)
    path.write_text("[1]")
    with pytest.raises(InputError, match="no fitted routing"):
        load_routing(path)


@pytest.mark.parametrize("name", ["mixtral-8x7b", "olmoe-1b-7b", "olmoe-1b-7b/arxiv"])
def test_traces_of_a_shipped_fit_have_its_popularity_and_correlate_layers(name):
    source = fitted_source(next(fit for fit in shipped_routing() if fit.name == name))
    trace = trace_of(source, 20_000)
    expected = source_inclusion(source)
    assert np.abs(popularity(trace) - expected).max() < 5 * np.sqrt(0.25 / 20_000)
    joint = correlation(layer_pairs(trace))
    shuffled = trace_of(source, 20_000, seed=1)
    apart = shuffled.experts.copy()
    apart[:, 0] = trace.experts[:, 0]
    assert (joint[0] > 3 * correlation(layer_pairs(replace(trace, experts=apart)))[0]).all()


def test_the_report_names_every_shipped_fit(capsys):
    assert main([]) == 0
    told = capsys.readouterr().out
    assert all(fit.name in told for fit in shipped_routing())
    assert len(report_lines(shipped_routing())) == 1 + len(shipped_routing())


@pytest.mark.shared
@needs_shared
@pytest.mark.parametrize("model", ["mixtral-8x7b", "olmoe-1b-7b"])
def test_shipped_fits_are_those_of_the_counts(model):
    counts = [part for part in read_routing_counts(TABLES) if part.model == model]
    whole = pooled(counts, "all")
    for part in (whole, *counts):
        name = model if part is whole else f"{model}/{part.domain}"
        fit = next(fit for fit in shipped_routing() if fit.name == name)
        assert (fit.shape.layers, fit.shape.top_k) == (part.layers, part.top_k)
        assert np.abs(source_inclusion(fitted_source(fit)) - part.chosen / part.tokens).max() < 2e-3
        assert fit.quality["information"] == pytest.approx(information(part.pairs).mean(), rel=1e-3)
        assert fit.quality["kl"] < 0.3 * fit.quality["information"]
        assert fit.quality["held_out_kl_given_popularity"] < fit.quality["held_out_information"]
        assert fit.quality["sampled_information"] == pytest.approx(fit.quality["information"], rel=0.3)


def test_damaged_counts_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_routing_counts(tmp_path)
    head = "model,domain,selection,entry,layer,expert,count\n"
    (tmp_path / "expert_counts.csv").write_text(head + "m,d,topk,0,0,0,ten\n")
    (tmp_path / "expert_pair_counts.csv").write_text("model,domain,layer_from,layer_to,expert_from,expert_to,count\n")
    with pytest.raises(InputError, match="count is 'ten'"):
        read_routing_counts(tmp_path)
    (tmp_path / "expert_counts.csv").write_text("model,domain\n")
    with pytest.raises(InputError, match="its columns"):
        read_routing_counts(tmp_path)
    rows = [
        f"m,d,{kind},0,{layer},{e},{n}\n" for kind in ("topk", "top1") for layer in (0, 1) for e, n in ((0, 3), (1, 1))
    ]
    (tmp_path / "expert_counts.csv").write_text(head + "".join(rows))
    with pytest.raises(InputError, match="its sums are not the counts"):
        read_routing_counts(tmp_path)


def test_classes_and_zipf_make_a_source_that_a_fit_explains():
    """Sampled pairs of a source with classes: the fit finds most of what ties its layers."""
    rng = np.random.default_rng(0)
    source = with_classes(zipf(shape_of(12, 2, 3), 0.5, rng), 4, 2.0, rng)
    pairs = layer_pairs(trace_of(source, 50_000)) * 200_000
    law = fit_classes(pairs, 4, 2, rng).pairs()
    assert (divergence(pairs, law) < 0.25 * information(pairs)).all()
