"""offload.html: policies of expert offload side by side, and the fastest one over time. One page, as the others."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from simtool.files import output_file
from simtool.offloading import OffloadQuestion, PolicyWalk
from simtool.offloads import offload_text
from simtool.report.calibration_tables import scrolled
from simtool.report.card import Card, cards_row
from simtool.report.html_tables import table
from simtool.report.offload_figures import SpeedPoint
from simtool.report.offload_rows import OFFLOAD_CAVEAT, OFFLOAD_HEADS, offload_rows
from simtool.report.offload_section import offload_section, speed_section
from simtool.report.shell import package_version, page_html, panel, section
from simtool.units import GB


def write_offload_page(question: OffloadQuestion, found: Sequence[PolicyWalk], path: Path) -> None:
    """Write `offload_page` to `path`, whole or not at all."""
    with output_file(path) as building:
        building.write_text(offload_page(question, found), encoding="utf-8")


def offload_page(question: OffloadQuestion, found: Sequence[PolicyWalk]) -> str:
    """The page as HTML text; found: at least one walk. Those that do not fit the device are no answer."""
    figures: dict[str, str] = {}
    best = max(found, key=lambda one: (one.fits, one.tokens_per_s))
    head = (
        '<header><div class="eyebrow">simtool · expert offload</div>'
        f"<h1>{escape(question.model)} on one {escape(question.device.upper())}</h1>"
        f'<p class="lead">{question.steps:,} steps of batch {question.batch}, {question.context:,} tokens cached '
        f"each, routed as {escape(question.routing or 'uniform')}. Fastest of {len(found)}: "
        f"<strong>{escape(offload_text(best.offload))}</strong>.</p></header>"
    )
    points = [
        SpeedPoint(
            name=one.offload.policy,
            label=offload_text(one.offload),
            hbm_bytes=one.hbm_bytes,
            tokens_per_s=one.tokens_per_s,
            fits=one.fits,
        )
        for one in found
    ]
    memory = "Output tokens a second against GPU memory that experts take, by policy; hollow: does not fit the device."
    body = (
        head
        + cards_row(_cards(best))
        + speed_section(points, figures, memory)
        + _table(found, best)
        + offload_section(best.use, figures, heading=f"Expert offload: {offload_text(best.offload)}")
    )
    style = files("simtool.report").joinpath("calibration.css").read_text("utf-8")
    return page_html("Expert offload · simtool", body, figures, package_version(), style)


def _cards(best: PolicyWalk) -> list[Card]:
    return [
        Card(name="fastest", value=best.tokens_per_s, unit="tok/s", more=offload_text(best.offload)),
        Card(name="hits", value=100 * best.use.hit_rate, unit="%"),
        Card(name="waiting for experts", value=100 * best.use.stalled_share, unit="% of the time"),
        Card(name="experts in HBM", value=best.hbm_bytes / GB, unit="GB"),
    ]


def _table(found: Sequence[PolicyWalk], best: PolicyWalk) -> str:
    classes = ["best" if one is best else "" for one in found]
    listed = table(OFFLOAD_HEADS, offload_rows(found), classes)
    return section(
        "Policies",
        " ".join(f"{line[:1].upper()}{line[1:]}." for line in OFFLOAD_CAVEAT.splitlines()),
        panel(scrolled(listed)),
    )
