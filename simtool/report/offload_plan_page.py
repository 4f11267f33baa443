"""offload-plan.html: what the planner of expert offload found, and memory against speed beside its bound. One page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from simtool.files import output_file
from simtool.offload_planning import OffloadPlanQuestion
from simtool.planners.offload.fastest import FastestOffload
from simtool.report.calibration_tables import scrolled
from simtool.report.card import Card, cards_row
from simtool.report.html_tables import table
from simtool.report.offload_figures import SpeedPoint
from simtool.report.offload_plan_rows import (
    BOUND_HEADS,
    PLAN_CAVEAT,
    TRIAL_HEADS,
    bound_rows,
    slots_text,
    trial_rows,
    way_text,
)
from simtool.report.offload_section import speed_section
from simtool.report.shell import package_version, page_html, panel, section
from simtool.units import GB

_CURVE_WORDS = (
    "Output tokens a second against GPU memory that the experts in it may take: the fastest found, and the bound."
)


def write_offload_plan_page(
    question: OffloadPlanQuestion, found: FastestOffload, curve: Sequence[FastestOffload], path: Path
) -> None:
    """Write `offload_plan_page` to `path`, whole or not at all."""
    with output_file(path) as building:
        building.write_text(offload_plan_page(question, found, curve), encoding="utf-8")


def offload_plan_page(question: OffloadPlanQuestion, found: FastestOffload, curve: Sequence[FastestOffload]) -> str:
    """The page as HTML text. curve: answers with less memory, least first."""
    figures: dict[str, str] = {}
    walked, best = question.walked, found.best
    head = (
        '<header><div class="eyebrow">simtool · expert offload plan</div>'
        f"<h1>{escape(walked.model)} on one {escape(walked.device.upper())}</h1>"
        f'<p class="lead">{walked.steps:,} decode steps, {walked.context:,} tokens cached each, routed as '
        f"{escape(walked.routing or 'uniform')}. Fastest: <strong>{escape(way_text(best.choice))}</strong>, batch "
        f"{best.choice.batch}, weights {escape(best.choice.weight_dtype)}, {slots_text(best.choice)} of a layer "
        f"in HBM. Gap to the bound: {100 * found.gap:.1f}%.</p></header>"
    )
    points = [point for one in (*curve, found) for point in _points(one)]
    body = (
        head
        + cards_row(_cards(found))
        + speed_section(points, figures, _CURVE_WORDS)
        + _section("Walked", PLAN_CAVEAT, TRIAL_HEADS, trial_rows(found.trials))
        + _section("Bounds", _bound_words(found), BOUND_HEADS, bound_rows(found.bounds))
    )
    style = files("simtool.report").joinpath("calibration.css").read_text("utf-8")
    return page_html("Expert offload plan · simtool", body, figures, package_version(), style)


def _points(found: FastestOffload) -> list[SpeedPoint]:
    best = found.best
    pairs = (("found", way_text(best.choice), best.tokens_per_s), ("bound", "bound", found.bound_tokens_per_s))
    return [
        SpeedPoint(name=name, label=label, hbm_bytes=best.experts_bytes, tokens_per_s=speed)
        for name, label, speed in pairs
    ]


def _cards(found: FastestOffload) -> list[Card]:
    best = found.best
    return [
        Card(name="simulated", value=best.tokens_per_s, unit="tok/s", more=way_text(best.choice)),
        Card(name="bound", value=found.bound_tokens_per_s, unit="tok/s", more=f"{found.bounds[0].binds} binds"),
        Card(name="gap", value=100 * found.gap, unit="%"),
        Card(name="GPU memory", value=best.device_bytes / GB, unit="GB"),
    ]


def _bound_words(found: FastestOffload) -> str:
    words = "No configuration of a row is faster: fewest loads (Belady) over the link, dense parts and experts."
    if found.split is None:
        return words
    proof = found.split.certificate
    return f"{words} Split over layers: {proof.status.lower()}, gap {100 * proof.gap:.2g}% ({escape(proof.scope)})."


def _section(name: str, words: str, heads: Sequence[str], rows: list[list[str]]) -> str:
    text = " ".join(f"{line[:1].upper()}{line[1:]}." for line in words.rstrip(".").splitlines())
    return section(name, text, panel(scrolled(table(heads, rows, [""] * len(rows)))))
