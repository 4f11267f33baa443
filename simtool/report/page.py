"""The page of a plan or a run: its sections in reading order."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape

from simtool.plan_file import plan_json
from simtool.report.cards import cards_html
from simtool.report.choice import pareto_figure, proof_figure
from simtool.report.contents import Contents
from simtool.report.drawing import plan_drawing
from simtool.report.latency import latency_figure, timeline_figure
from simtool.report.limits import limits
from simtool.report.offload_section import offload_section
from simtool.report.sentence import headline, lead, title
from simtool.report.shell import page_html, panel, plot, section
from simtool.report.tables import costs_table, facts_table, plans_table, provenance_table
from simtool.report.where import load_figure, operator_figure
from simtool.report.wording import duration


def report_page(contents: Contents) -> str:
    """The whole page as HTML text."""
    figures: dict[str, str] = {}
    body = "".join(
        part(contents, figures)
        for part in (_head, _plan, _choice, _latency, _offload, _where, _load, _money, _provenance, _limits, _asked)
    )
    return page_html(title(contents), body, figures, contents.version)


def _head(contents: Contents, _: dict[str, str]) -> str:
    kind = "plan report" if contents.answer else "simulation report"
    return (
        f'<header><div class="eyebrow">simtool · {kind}</div><h1>{headline(contents)}</h1>'
        f'<p class="lead">{lead(contents)}</p></header>{cards_html(contents)}'
    )


def _plan(contents: Contents, _: dict[str, str]) -> str:
    drawing = plan_drawing(contents.plan, contents.cluster, contents.stage_layers)
    say = "Each box is a GPU, with the shard of the model that it holds; each frame is a host."
    return section("The plan", say, drawing)


def _choice(contents: Contents, figures: dict[str, str]) -> str:
    answer = contents.answer
    if answer is None:
        return ""
    say = (
        f"{answer.legal:,} legal plans: {answer.simulated:,} simulated, {answer.pruned:,} pruned because even their "
        "optimistic bound cannot beat the best or they run as another plan does. "
        f"Gap {100 * answer.gap:.3g}%. Point at a plan to read it."
    )
    charts = (
        '<div class="two">'
        + panel(plot(pareto_figure(answer), "pareto", figures), "Speed for a user against output of a GPU")
        + panel(plot(proof_figure(answer), "proof", figures), "What each plan could reach, and what it did")
        + "</div>"
    )
    return section("The choice", say, charts + panel(plans_table(answer)))


def _latency(contents: Contents, figures: dict[str, str]) -> str:
    if not len(contents.result.sent_s):
        return ""
    plots = panel(plot(latency_figure(contents.result, contents.slo), "latency", figures), "How long requests take")
    lines = panel(plot(timeline_figure(contents.result), "timeline", figures), "The run over time")
    requests = int(contents.metrics.get("completed", len(contents.result.sent_s)))
    say = f"{requests:,} requests in {duration(contents.metrics.get('duration', 0.0))} of simulated time."
    return section("Latency and load over time", say, plots + lines)


def _offload(contents: Contents, figures: dict[str, str]) -> str:
    use = contents.result.offload
    return "" if use is None else offload_section(use, figures)


def _where(contents: Contents, figures: dict[str, str]) -> str:
    if not contents.steps:
        return ""
    panels = []
    for index, step in enumerate(contents.steps):
        floor_s = sum(operator.roofline_s for operator in step.operators)
        label = f"{step.label}: {duration(step.seconds)}, of which {duration(floor_s)} is the roofline floor"
        panels.append(panel(plot(operator_figure(step), f"operators{index}", figures), label))
    say = "One step of one replica, operator by operator. The solid part is the least that the specification allows."
    if contents.result.offload is not None:
        say += " Experts are priced as if all were in HBM: what their offload costs is said above."
    return section("Where the time goes", say, f'<div class="two">{"".join(panels)}</div>')


def _load(contents: Contents, figures: dict[str, str]) -> str:
    if len(contents.load) < 2:
        return ""
    figure = load_figure(contents.load, contents.load_axis, contents.load_now, contents.slo.attainment)
    part = contents.load_requests and contents.load_requests < len(contents.result.sent_s)
    which = f"the first {contents.load_requests:,} requests" if part else "the same requests"
    say = f"The same plan and {which} at other loads ({contents.load_axis})."
    return section("If the load changes", say, panel(plot(figure, "load", figures)))


def _money(contents: Contents, _: dict[str, str]) -> str:
    return section("Energy and cost", contents.price_source, panel(costs_table(contents)))


def _provenance(contents: Contents, _: dict[str, str]) -> str:
    say = (
        "How each kind of operator got its time. Measured: timed on this device. Interpolated: between measurements. "
        "Transferred: scaled from another device by specification. Roofline: from the specification alone."
    )
    return section("Where the numbers come from", say, panel(provenance_table(contents)))


def _limits(contents: Contents, _: dict[str, str]) -> str:
    moe = "moe" in contents.provenance
    items = "".join(f"<li>{escape(text)}</li>" for text in limits(contents.plan, moe=moe))
    return section("What is not modelled", "", f'<ul class="plain">{items}</ul>')


def _asked(contents: Contents, _: dict[str, str]) -> str:
    metrics = {key: value for key, value in contents.metrics.items() if isinstance(value, int | float | str)}
    folds = (
        f"<details><summary>plan.json: `simtool simulate` replays it exactly</summary><pre>"
        f"{escape(plan_json(contents.plan))}</pre></details>",
        f"<details><summary>All metrics, by the names of vLLM's benchmark</summary><pre>"
        f"{escape(json.dumps(metrics, indent=2))}</pre></details>",
        f"<details><summary>Limits asked for</summary><pre>{escape(json.dumps(asdict(contents.slo), indent=2))}</pre>"
        "</details>",
    )
    return section("What was asked", "", panel(facts_table(contents)) + "".join(map(panel, folds)))
