"""Counts of expert choices → models/data/routing.json: latent classes of each model and domain, with their quality."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.fit_classes import Classes, fit_classes
from simtool.calibration.routing_counts import RoutingCounts, pooled, read_routing_counts
from simtool.errors import SimtoolError
from simtool.files import output_file
from simtool.models.routing.fitted import FittedRouting, nested, routing_json, shipped_routing
from simtool.models.routing.inclusion import rates_of, source_inclusion
from simtool.models.routing.observed import layer_pairs
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import RoutingSource

CLASSES = (1, 2, 4, 8, 16, 32)
_TOLERANCE = 0.02  # of the held-out divergence: no more classes than are needed to come so near the best
_SAMPLED = 20_000  # tokens that a fit is sampled for
_IPF_ROUNDS = 200
SOURCE = "expert and pair counts of the OLMoE authors (allenai/OLMoE, scripts/routing_output, Apache-2.0)"
COMMAND = "python -m simtool.calibration.fit_routing --data FOLDER --out FILE"


def fit_routing(parts: Sequence[RoutingCounts], *, seed: int = 0) -> list[FittedRouting]:
    """A fit of all domains of one model together ("all") and one of each, with as many classes as held-out text wants.

    parts: the model's counts, one a domain. Held out: each domain from a fit of the others.
    """
    divergences = {classes: _held_out(parts, classes, seed) for classes in CLASSES}
    best = min(float(np.mean(kl)) for kl, _ in divergences.values())
    classes = next(n for n, (kl, _) in divergences.items() if float(np.mean(kl)) <= (1 + _TOLERANCE) * best)
    raw, known = divergences[classes]
    whole = {"held_out_kl": float(np.mean(raw)), "held_out_kl_given_popularity": float(np.mean(known))}
    whole["held_out_information"] = float(np.mean([information(part.pairs).mean() for part in parts]))
    found = [_fit(pooled(parts, "all"), classes, seed, whole)]
    for place, part in enumerate(parts):
        own = {"held_out_kl": raw[place], "held_out_kl_given_popularity": known[place]}
        found.append(_fit(part, classes, seed, own | {"held_out_information": float(information(part.pairs).mean())}))
    return found


def divergence(counts: NDArray[np.float64], law: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kullback-Leibler divergence of a law from counted pairs, nats, float64[tables]; both [tables, E, E]."""
    share = counts / counts.sum(axis=(1, 2), keepdims=True)
    ratio = np.where(share > 0, share, 1.0) / np.where(share > 0, np.maximum(law, 1e-300), 1.0)
    return np.asarray((share * np.log(ratio)).sum(axis=(1, 2)))


def information(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """What one choice of a pair says of the other, nats, float64[tables]: the divergence of independent choices."""
    share = counts / counts.sum(axis=(1, 2), keepdims=True)
    return divergence(counts, share.sum(axis=2, keepdims=True) * share.sum(axis=1, keepdims=True))


def with_popularity(law: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The law with rows and columns scaled to the popularity that is counted (iterative proportional fitting)."""
    share = counts / counts.sum(axis=(1, 2), keepdims=True)
    found = law.copy()
    for _ in range(_IPF_ROUNDS):
        found *= share.sum(axis=2, keepdims=True) / np.maximum(found.sum(axis=2, keepdims=True), 1e-300)
        found *= share.sum(axis=1, keepdims=True) / np.maximum(found.sum(axis=1, keepdims=True), 1e-300)
    return found


def _held_out(parts: Sequence[RoutingCounts], classes: int, seed: int) -> tuple[list[float], list[float]]:
    """Divergence of each domain from a fit of the others, as it is and with the domain's popularity known."""
    raw, known = [], []
    for part in parts:
        rest = pooled([other for other in parts if other is not part], "rest")
        law = fit_classes(rest.pairs, classes, rest.top_k, np.random.default_rng(seed)).pairs()
        raw.append(float(divergence(part.pairs, law).mean()))
        known.append(float(divergence(part.pairs, with_popularity(law, part.pairs)).mean()))
    return raw, known


def _fit(counts: RoutingCounts, classes: int, seed: int, quality: dict[str, float]) -> FittedRouting:
    fitted = fit_classes(counts.pairs, classes, counts.top_k, np.random.default_rng(seed))
    experts = counts.chosen.shape[1]
    rates = rates_of(fitted.chosen.reshape(-1, experts) * counts.top_k, counts.top_k).reshape(fitted.chosen.shape)
    source = RoutingSource(rates=rates, class_share=fitted.share, top_k=counts.top_k)
    return FittedRouting(
        model=counts.model,
        domain=counts.domain,
        shape=MoeShape(layers=counts.layers, num_experts=experts, top_k=counts.top_k),
        share=tuple(fitted.share.tolist()),
        rates=nested(rates),
        quality=_in_sample(counts, fitted) | _sampled(counts, source, seed) | quality,
        provenance=f"{SOURCE}; {counts.tokens:,} tokens; {COMMAND}",
    )


def _in_sample(counts: RoutingCounts, fitted: Classes) -> dict[str, float]:
    return {
        "classes": float(len(fitted.share)),
        "information": float(information(counts.pairs).mean()),
        "kl": float(divergence(counts.pairs, fitted.pairs()).mean()),
    }


def _sampled(counts: RoutingCounts, source: RoutingSource, seed: int) -> dict[str, float]:
    """What traces of it are like: the largest error of an expert's inclusion, and the pairs of the same rank."""
    trace = sample_trace(source, sequences=_SAMPLED, output_tokens=1, rng=np.random.default_rng(seed))
    off = np.abs(source_inclusion(source) - counts.chosen / counts.tokens).max()
    pairs = layer_pairs(trace, same_rank=True)
    return {"inclusion_error": float(off), "sampled_information": float(information(pairs).mean())}


def report_lines(fits: Sequence[FittedRouting]) -> list[str]:
    """A table of quality, one line a fit; divergences in nats."""
    head = f"{'fit':24}{'classes':>8}{'information':>13}{'in KL':>8}{'out KL':>8}{'out, popularity known':>23}"
    lines = [f"{head}{'of information':>16}{'inclusion err':>15}{'sampled inf.':>14}"]
    for fit in fits:
        q = fit.quality
        line = f"{fit.name:24}{q['classes']:8.0f}{q['information']:13.4f}{q['kl']:8.4f}{q['held_out_kl']:8.4f}"
        line += f"{q['held_out_kl_given_popularity']:23.4f}{q['held_out_information']:16.4f}"
        lines.append(f"{line}{q['inclusion_error']:15.4f}{q['sampled_information']:14.4f}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m simtool.calibration.fit_routing", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of expert_counts.csv and expert_pair_counts.csv")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    options = parser.parse_args(arguments)
    try:
        if options.data is None or options.out is None:
            print("\n".join(report_lines(shipped_routing())))
            return 0
        counts = read_routing_counts(options.data)
        models = dict.fromkeys(part.model for part in counts)
        fits = [fit for model in models for fit in fit_routing([part for part in counts if part.model == model])]
        with output_file(options.out) as building:
            building.write_text(routing_json(fits), encoding="utf-8")
        print("\n".join(report_lines(fits)))
    except SimtoolError as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
