"""Tables of the page, as HTML."""

from __future__ import annotations

from html import escape

from simtool.planners.question import Answer
from simtool.report.contents import Contents
from simtool.report.html_tables import pairs, table, tag
from simtool.report.money import (
    cost_per_million_tokens,
    devices_by_type,
    dollars_per_hour,
    joules_per_token,
    kwh_per_million_tokens,
    mean_watts,
)
from simtool.report.ranking import plan_rows
from simtool.report.wording import number


def plans_table(answer: Answer) -> str:
    """The best simulated plans side by side, and which rules made the others illegal."""
    heads, rows, best = plan_rows(answer, limit=12)
    illegal = ", ".join(f"{escape(rule)} ({count:,})" for rule, count in sorted(answer.illegal.items()))
    note = f'<p class="say" style="margin:12px 0 6px">Excluded by rule: {illegal}.</p>' if illegal else ""
    return table(heads, rows, ["best" if place == best else "" for place in range(len(rows))]) + note


def costs_table(contents: Contents) -> str:
    """Price, cost, power and energy."""
    used = ", ".join(
        f"{count} × {device.upper()} at ${number(contents.price_per_hour[device])}/h"
        if device in contents.price_per_hour
        else f"{count} × {device.upper()} without a price"
        for device, count in devices_by_type(contents.plan).items()
    )
    watts = mean_watts(contents)
    rows = (
        ("GPUs and price", used),
        ("Cost", f"${number(dollars_per_hour(contents))} an hour, "
         f"${number(cost_per_million_tokens(contents))} a million output tokens"),
        ("Power", f"{number(watts)} W in all, {number(watts / contents.plan.devices)} W a GPU, mean over the run"),
        ("Energy", f"{number(joules_per_token(contents))} J an output token, "
         f"{number(kwh_per_million_tokens(contents))} kWh a million output tokens"),
    )  # fmt: skip
    return pairs(rows)


def provenance_table(contents: Contents) -> str:
    """Operator family -> kind of evidence."""
    rows = "".join(
        f"<tr><td>{escape(family.replace('_', ' '))}</td><td>{tag(kind)}</td></tr>"
        for family, kind in sorted(contents.provenance.items())
    )
    return f"<table>{rows}</table>"


def facts_table(contents: Contents) -> str:
    """The question: model, workload, hardware, in words."""
    return pairs((key.capitalize(), text) for key, text in contents.facts.items())
