"""calibration.html: how good kernel profiles are. One page, complete in itself, like the plan report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from simtool.errors import InputError
from simtool.files import output_file
from simtool.hardware.kernel_profile import KernelProfile
from simtool.report.calibration_figures import distribution_figure, glance_figure, scatter_figure
from simtool.report.calibration_links import curves_figure, interference_figure
from simtool.report.calibration_needs import needs_of
from simtool.report.calibration_needs_view import needs_figure, spots_table
from simtool.report.calibration_points import FitPoints, points_of
from simtool.report.calibration_roofline import bandwidth_figure, roofline_figure
from simtool.report.calibration_sentence import cards, headline, lead, noise_floor, profile_words
from simtool.report.calibration_tables import (
    contention_table,
    curves_table,
    errors_table,
    host_table,
    laws_table,
    machine_table,
    origins_table,
    overview_table,
)
from simtool.report.calibration_wording import family_words, fit_words, percent
from simtool.report.card import cards_row
from simtool.report.shell import package_version, page_html, panel, plot, section

NO_POINTS = "This profile keeps no raw points"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """One profile on the page. figures: JSON by name, of the whole page; prefix: of this profile's names."""

    profile: KernelProfile
    points: tuple[FitPoints, ...]
    figures: dict[str, str]
    prefix: str

    def plot(self, figure: object, name: str) -> str:
        return plot(figure, f"{self.prefix}{name}", self.figures)


def write_calibration_report(profiles: Sequence[KernelProfile], path: Path) -> None:
    """Write the page of one profile, or of several one after the other, to `path`: whole or not at all."""
    html = calibration_page(profiles)
    with output_file(path) as building:
        building.write_text(html, encoding="utf-8")


def calibration_page(profiles: Sequence[KernelProfile]) -> str:
    """The page as HTML text."""
    if not profiles:
        raise InputError("calibration report", "has no profile to show", "give at least one profile")
    figures: dict[str, str] = {}
    several = len(profiles) > 1
    body = _overview(tuple(profiles)) if several else ""
    for place, profile in enumerate(profiles):
        shown = _Shown(profile=profile, points=points_of(profile), figures=figures, prefix=f"p{place}-")
        inner = "".join(part(shown) for part in _PARTS)
        body += f'<div class="profile" id="p{place}">{inner}</div>' if several else inner
    name = profile_words(profiles[0]) if not several else f"{len(profiles)} profiles"
    style = files("simtool.report").joinpath("calibration.css").read_text("utf-8")
    return page_html(f"Calibration of {name} · simtool", body, figures, package_version(), style)


def _overview(profiles: tuple[KernelProfile, ...]) -> str:
    links = " · ".join(f'<a href="#p{i}">{escape(profile_words(profile))}</a>' for i, profile in enumerate(profiles))
    overview = panel(overview_table(profiles))
    return (
        f'<header><div class="eyebrow">simtool · calibration report</div><h1>{len(profiles)} kernel profiles</h1>'
        f'<p class="lead">{links}</p></header>'
        + section("At a glance", "Held out: median over the fits, on points they did not see.", overview)
    )


def _head(shown: _Shown) -> str:
    profile = shown.profile
    return (
        f'<header><div class="eyebrow">simtool · calibration report</div><h1>{headline(profile)}</h1>'
        f'<p class="lead">{lead(profile)}</p></header>{cards_row(cards(profile, shown.points))}'
    )


def _errors(shown: _Shown) -> str:
    if not shown.profile.fits:
        return ""
    say = (
        "Relative errors as median / p95. Held out: on points, or whole shapes, that the fit did not see. Noise floor: "
        "how far two measurements of one point differ. Marked where the held-out error is more than twice the noise, "
        "or the 90% interval covers less than 85% or more than 95%."
    )
    figure = shown.plot(glance_figure(shown.profile), "glance")
    return section("How wrong the predictions are", say, panel(figure) + panel(errors_table(shown.profile)))


def _scatter(shown: _Shown) -> str:
    if not shown.profile.fits:
        return ""
    heading = "Predicted against measured"
    if not shown.points:
        say = f"{NO_POINTS}, so there is nothing to plot here: only its laws, residual tables and errors are stored."
        return section(heading, say, "")
    panels = []
    for family in dict.fromkeys(part.fit.family for part in shown.points):
        parts = [part for part in shown.points if part.fit.family == family]
        error = np.abs(np.concatenate([part.error for part in parts]))
        median, p95 = (percent(float(np.quantile(error, share))) for share in (0.5, 0.95))
        title = f"{family_words(family)}: {len(error):,} points, {median} median, {p95} p95"
        panels.append(panel(shown.plot(scatter_figure(family, parts), f"scatter-{family}"), _upper(title)))
    return section(heading, _scatter_say(shown), f'<div class="two">{"".join(panels)}</div>')


def _scatter_say(shown: _Shown) -> str:
    seen = [fit_words(part.fit) for part in shown.points if not part.left_out]
    said = "" if len(seen) == len(shown.points) else (
        "Each point is predicted from all the others by the Gaussian process (leave-one-out; repeats of a point leave "
        "together), with the law and its length scales kept. "
    )  # fmt: skip
    if seen:
        said += f"The law alone prices {', '.join(seen)}, fitted to these points too. "
    kept = {(part.fit.family, part.fit.dtype) for part in shown.points}
    rest = [fit_words(fit) for key, fit in shown.profile.fits.items() if key not in kept]
    if rest:
        said += f"No points are kept of {', '.join(rest)}. "
    return said + "The band is ±10%. Point at a dot for its shape."


def _distribution(shown: _Shown) -> str:
    if not shown.points:
        return ""
    noise = noise_floor(shown.profile)
    figure = distribution_figure(shown.points, 0.0 if np.isnan(noise) else noise)
    say = (
        "The same errors. Left: the share of points within an error, by family. Right: which way they go; a box holds "
        "the middle half, its whiskers 90%."
    )
    return section("Error distributions", say, panel(shown.plot(figure, "distribution")))


def _roofline(shown: _Shown) -> str:
    roof, memory = roofline_figure(shown.profile, shown.points), bandwidth_figure(shown.profile, shown.points)
    if roof is None and memory is None:
        return ""
    say = (
        "What each measured call reached, below the ceilings that the efficiencies are fractions of. "
        "A working set that stays in a cache may pass the memory ceiling; a call slower than 1/100,000 of the highest "
        "ceiling is all launch and lies under the axis."
        if shown.points
        else f"{NO_POINTS}: the lines are the most that each fitted law allows, below the ceilings."
    )
    panels = panel(shown.plot(roof, "roofline"), "Compute: FLOP/s over FLOP/byte") if roof is not None else ""
    if memory is not None:
        panels += panel(shown.plot(memory, "bandwidth"), "Memory-bound kernels: bytes/s over bytes moved")
    told = (
        '<p class="below">Law: (launch^p + compute^p + memory^p)^(1/p) with exponent p, plus a time for each item '
        "(thread block, expert). Compute and memory are shares of the ceilings. The 90% interval holds where the law's "
        "launch, memory or compute term is the largest; that of a process is shown at its usual deviation.</p>"
    )
    return section("Roofline", say, panels + panel(laws_table(shown.profile, shown.points) + told, "The fitted laws"))


def _interference(shown: _Shown) -> str:
    pairs = shown.profile.contention
    if not pairs:
        return ""
    say = (
        "Two workloads at once: the share of its lone speed that the one on the left keeps beside the one above. "
        "Empty: not measured."
    )
    inner = panel(shown.plot(interference_figure(pairs), "interference")) + panel(contention_table(shown.profile))
    return section("Interference", say, inner)


def _transfers(shown: _Shown) -> str:
    panels = ""
    for name, title, curves in (
        ("copies", "Copies: bandwidth by size", shown.profile.copies),
        ("collectives", "Collectives: message size over time, by size", shown.profile.curves),
    ):
        if curves:
            panels += panel(shown.plot(curves_figure(curves), name) + curves_table(curves), title)
    say = "Dots are the curve's knots, which follow the measured times; held out: every second size left out in turn."
    return section("Copies and collectives", say, panels) if panels else ""


def _host(shown: _Shown) -> str:
    if not shown.profile.host:
        return ""
    say = "What the host spends, apart from the kernels themselves."
    return section("Host and launch times", say, panel(host_table(shown.profile)))


def _needs(shown: _Shown) -> str:
    every = [needs for needs in map(needs_of, shown.points) if needs is not None]
    if not shown.profile.fits:
        return ""
    if not every:
        return section("Where more points would help", _without_process(shown.profile), "")
    say = (
        "Deviation (one sigma) that the process expects of a measurement, over shapes in the box of the points and no "
        "dearer than the dearest of them. The stronger the colour, the less certain. Dots: measured. The table takes "
        "the widest spot, then the widest once that is measured, and so on."
    )
    panels = [
        panel(shown.plot(figure, f"needs-{place}"), _upper(fit_words(needs.fit)))
        for place, needs in enumerate(every)
        if (figure := needs_figure(needs)) is not None
    ]
    maps = f'<div class="two">{"".join(panels)}</div>' if panels else ""
    return section("Where more points would help", say, maps + panel(spots_table(every), "Measure next"))


def _without_process(profile: KernelProfile) -> str:
    widest = sorted(profile.fits.values(), key=lambda fit: -fit.errors.held_out_p95)[:3]
    names = ", ".join(f"{fit_words(fit)} (p95 {percent(fit.errors.held_out_p95)})" for fit in widest)
    return (
        "No fit of this profile is a Gaussian process over its points, so none tells where it is unsure. "
        f"Largest held-out errors: {names}."
    )


def _origin(shown: _Shown) -> str:
    origins = f"<details><summary>Where each fit's rows came from</summary>{origins_table(shown.profile)}</details>"
    inner = panel(machine_table(shown.profile)) + (panel(origins) if shown.profile.fits else "")
    return section("Machine and provenance", "", inner)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


_PARTS: tuple[Callable[[_Shown], str], ...] = (
    _head, _errors, _scatter, _distribution, _roofline, _interference, _transfers, _host, _needs, _origin
)  # fmt: skip
