"""A validation in a sentence and in key numbers."""

from __future__ import annotations

import math
from html import escape

from simtool.report.card import Card
from simtool.report.validation_rows import metric_words, share, signed, term_words
from simtool.report.wording import devices_phrase, plan_phrase
from simtool.validation import MetricRow, Term, Validation

_HEADLINES = ("mean_ttft_ms", "mean_tpot_ms", "mean_e2el_ms", "output_throughput")
_NONE = 0.005  # of the whole: a term below is not worth a sentence


def headlines(validation: Validation) -> list[MetricRow]:
    """The rows that the sentence and the cards name."""
    return [row for row in validation.metrics if row.key in _HEADLINES]


def verdict(validation: Validation) -> str:
    """How far off the prediction is, as plain text."""
    rows = headlines(validation) or list(validation.metrics[:3])
    told = ", ".join(f"{metric_words(row.key)} {signed(row.error)}" for row in rows)
    steps = ""
    if validation.overall is not None:
        steps = f"; a step is off by {share(validation.overall.median)} in the median"
    failed = [gate for gate in validation.gates if not gate.passed]
    return f"Predicted against measured: {told}{steps}." + (f" {_failed(len(failed))}" if failed else "")


def _failed(count: int) -> str:
    return f"{count} of the demands {'is' if count == 1 else 'are'} not met."


def schedule_words(validation: Validation) -> str:
    """Whether the scheduler decided as recorded; "" where nothing was recorded."""
    if validation.divergence:
        return f"The schedule diverges at {validation.divergence}."
    if validation.steps is None:
        return ""
    return f"The schedule is the recorded one in all {len(validation.steps.measured_s):,} steps."


def blame(validation: Validation) -> str:
    """The largest part of the steps' error, and what another schedule adds, in words; "" without an attribution."""
    found = validation.attribution
    if found is None:
        return ""
    other = sum(term.e2e_s for term in found.terms if term.kind == "schedule") / found.measured_e2e_s
    worst: Term = max((t for t in found.terms if t.kind != "schedule"), key=lambda term: abs(term.e2e_s))
    part = worst.e2e_s / found.measured_e2e_s
    told = "No part of a step is off by more than half a percent of the end-to-end latency"
    if abs(part) >= _NONE:
        less = "less" if part > 0 else "more"
        off = f"predicted {less} than measured by {share(abs(part))} of the end-to-end latency"
        told = f"In the steps {term_words(worst)} is off most: {off}"
    if abs(other) < _NONE:
        return f"{told}."
    return f"{told}; {signed(other)} is that requests met other batches than predicted."


def title(validation: Validation) -> str:
    """The page's title."""
    model = validation.plan.model.removesuffix("/config.json").rsplit("/", 1)[-1]
    return f"Validation of {model} · simtool"


def headline(validation: Validation) -> str:
    """The answer as one HTML sentence."""
    model = validation.plan.model.removesuffix("/config.json").rsplit("/", 1)[-1]
    what = f"<em>{escape(model)}</em> on {escape(devices_phrase(validation.plan.cluster))}"
    if validation.divergence:
        return f"{what}: the simulated schedule is not the measured one."
    worst = max(headlines(validation) or validation.metrics, key=lambda row: abs(row.error))
    return f"{what} is predicted within {share(abs(worst.error))} of the measured run ({metric_words(worst.key)})."


def lead(validation: Validation) -> str:
    """What was measured by whom, as HTML."""
    told = f"Measured by {escape(validation.tool)}, {escape(plan_phrase(validation.plan, validation.cpus))}."
    schedule = escape(schedule_words(validation))
    if validation.divergence:
        schedule = f'<span class="problem">{schedule}</span>'
    return " ".join(part for part in (told, escape(verdict(validation)), schedule, escape(blame(validation))) if part)


def cards(validation: Validation) -> list[Card]:
    """The key numbers."""
    found = []
    if validation.overall is not None:
        overall = validation.overall
        noise = "" if math.isnan(overall.noise) else f", noise {share(overall.noise)}"
        found.append(
            Card(name="Error of a step", value=100 * overall.median, unit="% median",
                 more=f"p95 {share(overall.p95)}, bias {signed(overall.bias)}{noise}")
        )  # fmt: skip
    for row in headlines(validation):
        inside = "inside the 90% interval" if row.inside else "outside the 90% interval"
        noise = "" if math.isnan(row.noise) else f", noise {share(row.noise)}"
        name = metric_words(row.key)
        found.append(
            Card(name=name[:1].upper() + name[1:], value=100 * row.error, unit="% error", more=f"{inside}{noise}")
        )
    return found
