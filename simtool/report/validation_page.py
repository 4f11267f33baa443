"""validation.html: how good a prediction was. One page, complete in itself, like the others."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np

from simtool.plan_file import plan_json
from simtool.report.calibration_tables import scrolled
from simtool.report.card import cards_row
from simtool.report.html_tables import pairs, table
from simtool.report.shell import package_version, page_html, panel, plot, section
from simtool.report.validation_figures import (
    groups_figure,
    intervals_figure,
    kinds_of,
    order_figure,
    requests_figure,
    steps_figure,
    waterfall_figure,
)
from simtool.report.validation_rows import (
    METRIC_HEADS,
    ORDER_HEADS,
    STEP_HEADS,
    TERM_HEADS,
    gate_words,
    host_warning,
    host_words,
    metric_rows,
    order_rows,
    order_words,
    shown_metrics,
    step_rows,
    term_rows,
)
from simtool.report.validation_sentence import cards, headline, lead, title
from simtool.report.validation_timeline import timelines_figure
from simtool.validation import PlanOrder, Steps, Validation


def validation_page(validation: Validation) -> str:
    """The page of one validation as HTML text."""
    figures: dict[str, str] = {}
    body = "".join(part(validation, figures) for part in _PARTS)
    return page_html(title(validation), body, figures, package_version(), _style())


def order_page(order: PlanOrder, found: Sequence[Validation]) -> str:
    """The page of several plans: their order, then each one's metrics."""
    figures: dict[str, str] = {}
    head = (
        f'<header><div class="eyebrow">simtool · validation report</div><h1>{escape(order_words(order))}</h1></header>'
    )
    say = "Above the diagonal a plan is predicted higher than it was measured. The band is ±10%."
    drawn = panel(plot(order_figure(order), "order", figures))
    listed = panel(scrolled(table(ORDER_HEADS, order_rows(order), [""] * len(order.names))))
    body = head + section("Predicted and measured order", say, drawn + listed)
    for name, one in zip(order.names, found, strict=True):
        rows = metric_rows(one)
        body += section(name, lead_text(one), panel(scrolled(table(METRIC_HEADS, rows, _inside(rows)))) + _host(one))
    return page_html("Order of plans · simtool", body, figures, package_version(), _style())


def lead_text(validation: Validation) -> str:
    """Who measured."""
    return f"Measured by {validation.tool}."


def _style() -> str:
    return files("simtool.report").joinpath("calibration.css").read_text("utf-8")


def _head(validation: Validation, _: dict[str, str]) -> str:
    return (
        f'<header><div class="eyebrow">simtool · validation report</div><h1>{headline(validation)}</h1>'
        f'<p class="lead">{lead(validation)}</p></header>{cards_row(cards(validation))}'
    )


def _metrics(validation: Validation, figures: dict[str, str]) -> str:
    rows = metric_rows(validation)
    say = (
        "Error is predicted / measured − 1. The interval has every step time at its lower or upper end at once, so it "
        "is wider than 90% for a whole run. Percentiles of too few requests are left out."
    )
    drawn = panel(plot(intervals_figure(shown_metrics(validation)), "intervals", figures))
    return section("Metrics", say, drawn + panel(scrolled(table(METRIC_HEADS, rows, _inside(rows)))))


def _inside(rows: Sequence[tuple[str, ...]]) -> list[str]:
    return ["sound" if row[-1] == "yes" else "flagged" for row in rows]


def _steps(validation: Validation, figures: dict[str, str]) -> str:
    steps = validation.steps
    if steps is None:
        return ""
    say = (
        "Each measured step against the price of the same batch: the scheduler is replayed on the measured times, and "
        "each step that it composes is priced. The band is ±10%. Point at a dot for its batch."
    )
    labels, members = zip(*_members(steps), strict=True)
    charts = (
        '<div class="two">'
        + panel(plot(steps_figure(steps), "steps", figures), "Predicted against measured")
        + panel(plot(groups_figure(steps, labels, members), "groups", figures), "Error by what a step holds")
        + "</div>"
    )
    rows = step_rows(validation)
    return section("Steps", say, charts + panel(scrolled(table(STEP_HEADS, rows, [""] * len(rows)))))


def _members(steps: Steps) -> list[tuple[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]]:
    """Groups of the box figure: prefill, mixed, and decodes by how many (powers of four)."""
    kinds, decodes = kinds_of(steps.prefill_tokens, steps.decode_requests), steps.decode_requests
    groups = [("prefill only", kinds == 0), ("prefill and decode", kinds == 1)]
    for least in (1, 2, 8, 32, 128, 512):
        most = {1: 2, 2: 8}.get(least, 4 * least)
        label = "decode 1" if least == 1 else f"decode {least}–{most - 1}"
        groups.append((label, (kinds == 2) & (decodes >= least) & (decodes < most)))
    return [(label, rows) for label, rows in groups if rows.any()]


def _timelines(validation: Validation, figures: dict[str, str]) -> str:
    if validation.measured is None:
        return ""
    figure = timelines_figure(validation.predicted, validation.measured)
    if figure is None:
        return ""
    what = (
        "Requests in flight in both runs." if validation.steps is None else "The simulated run above the measured one."
    )
    say = f"{what} The simulated one is on its own clock. Drag to zoom in; double-click to go back."
    return section("Timelines", say, panel(plot(figure, "timelines", figures)))


def _requests(validation: Validation, figures: dict[str, str]) -> str:
    if validation.measured is None or not validation.aligned:
        return ""
    figure = requests_figure(validation.predicted, validation.measured)
    return section("Requests", "One dot a request. The band is ±10%.", panel(plot(figure, "requests", figures)))


def _attribution(validation: Validation, figures: dict[str, str]) -> str:
    found = validation.attribution
    if found is None:
        return ""
    say = (
        "What stands between the predicted and the measured mean end-to-end latency. The recorded schedule is held "
        "while one part of every step after the other takes its measured time in place of its price; another schedule "
        "is what the predicted run decided otherwise. The parts add up exactly (docs/validate.md)."
    )
    rows = term_rows(found)
    listed = panel(scrolled(table(TERM_HEADS, rows, [*[""] * (len(rows) - 1), "best"])))
    return section("Where the error comes from", say, panel(plot(waterfall_figure(found), "parts", figures)) + listed)


def _demands(validation: Validation, _: dict[str, str]) -> str:
    items = "".join(f"<li>{escape(gate_words(gate))}</li>" for gate in validation.gates)
    say = "An error passes up to its limit, which is three times the noise of the measurement where that is more."
    return section("Demands", say, f'<ul class="plain">{items}</ul>{_host(validation)}')


def _host(validation: Validation) -> str:
    """The fitted host, with a warning where it does not help."""
    fit = validation.host_fit
    if fit is None:
        return ""
    warning = host_warning(fit)
    told = f'<p class="problem">{escape(warning)}</p>' if warning else ""
    return panel(f"<p>{escape(host_words(fit))}</p>{told}", "The host, fitted")


def _asked(validation: Validation, _: dict[str, str]) -> str:
    facts = [("Measured by", validation.tool), ("Read from", validation.source)]
    facts += [(name.replace("_", " "), str(value)) for name, value in validation.environment.items()]
    facts += [("Note", note) for note in validation.notes]
    fold = (
        f"<details><summary>plan.json: as it was predicted</summary><pre>{escape(plan_json(validation.plan))}</pre>"
        "</details>"
    )
    return section("What was compared", "", panel(pairs(facts)) + panel(fold))


_PARTS = (_head, _metrics, _steps, _timelines, _requests, _attribution, _demands, _asked)
