"""Figures of errors: all fits at a glance, predicted against measured, distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from simtool.hardware.kernel_profile import KernelProfile
from simtool.report.calibration_points import FitPoints
from simtool.report.calibration_wording import family_colour, family_words, fit_words, percent
from simtool.report.style import ACCENT, FAINT, WARM, axis, layout
from simtool.report.wording import duration

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "x", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_BAND = 0.10  # relative width of the band around the diagonal
_SMALLEST_ERROR = 1e-4  # the error axis is logarithmic
_CURVE_POINTS = 200
_UNITS = ("ns", "ns", "µs", "µs", "µs", "ms", "ms", "ms", "s", "s", "s", "ks")
_SECONDS = tuple(10.0**power for power in range(-8, 4))
LOG_TIME = {
    "tickvals": _SECONDS,
    "ticktext": [f"{10 ** (power % 3)} {unit}" for power, unit in zip(range(-8, 4), _UNITS, strict=True)],
}
ROOM_ABOVE = {"l": 8, "r": 12, "t": 30, "b": 8}  # for the tool bar
# A legend within the plot where points along the diagonal leave room.
CORNER = {"x": 0.99, "y": 0.02, "xanchor": "right", "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"}
_PERCENTS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
LOG_PERCENT = {"tickvals": _PERCENTS, "ticktext": [f"{value:g}%" for value in _PERCENTS]}


def glance_figure(profile: KernelProfile) -> go.Figure:
    """A line a fit from its median to its p95 held-out error, with the noise floor and the law alone beside it."""
    fits = list(profile.fits.values())[::-1]
    names = [fit_words(fit) for fit in fits]
    figure = go.Figure(layout=layout(max(200, 30 * len(fits) + 110)))
    errors = {fit_words(fit): fit.errors for fit in fits}
    noise = {name: (e.noise_median, e.noise_p95) for name, e in errors.items() if e.noise_points}
    law = {name: (e.law_only_median, e.law_only_p95) for name, e in errors.items()}
    held = {name: (e.held_out_median, e.held_out_p95) for name, e in errors.items()}
    _spans(figure, "noise floor", noise, WARM, "line-ns-open", 7)
    _spans(figure, "law alone", law, FAINT, "x-thin-open", 0)
    _spans(figure, "held out", held, ACCENT, "circle", 3)
    figure.update_xaxes(axis("relative error: mark at the median, line to the p95", type="log", **LOG_PERCENT))
    figure.update_yaxes(axis("", categoryorder="array", categoryarray=names, showgrid=False))
    return figure


def _spans(
    figure: go.Figure, label: str, spans: Mapping[str, tuple[float, float]], colour: str, symbol: str, width: int
) -> None:
    """A mark at each median, and a line `width` wide from there to the p95 (0: none)."""
    for name, ends in spans.items() if width else ():
        figure.add_scatter(
            x=[_shown(end) for end in ends], y=[name, name], mode="lines", hoverinfo="skip", showlegend=False,
            opacity=0.35, line={"color": colour, "width": width},
        )  # fmt: skip
    if spans:
        figure.add_scatter(
            x=[_shown(median) for median, _ in spans.values()], y=list(spans), mode="markers", name=label,
            marker={"color": colour, "size": 11, "symbol": symbol, "line": {"color": colour, "width": 2}},
            text=[f"{percent(median)} median, {percent(p95)} p95" for median, p95 in spans.values()],
            hovertemplate="<b>%{y}</b><br>" + label + " %{text}<extra></extra>",
        )  # fmt: skip


def scatter_figure(family: str, points: Sequence[FitPoints]) -> go.Figure:
    """Predicted over measured time of all fits of one family, with the diagonal and a band of 10%."""
    every = np.concatenate([np.concatenate([p.measured_s, p.predicted_s]) for p in points])
    ends = np.array([every.min() / 1.4, every.max() * 1.4])
    figure = go.Figure(layout=layout(400, showlegend=len(points) > 1, legend=CORNER, margin=ROOM_ABOVE))
    figure.add_scatter(
        x=[*ends, *ends[::-1]], y=[*(ends * (1 + _BAND)), *(ends[::-1] * (1 - _BAND))], fill="toself", mode="none",
        fillcolor="rgba(20,160,148,0.13)", hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": FAINT, "width": 1}, hoverinfo="skip", showlegend=False
    )
    for place, part in enumerate(points):
        figure.add_scatter(
            x=part.measured_s, y=part.predicted_s, mode="markers", name=part.fit.dtype,
            text=_hover(part), hovertemplate="%{text}<extra></extra>", marker=_marker(family, place),
        )  # fmt: skip
    span = [float(np.log10(end)) for end in ends]
    figure.update_xaxes(axis("measured time of a call", type="log", range=span, **LOG_TIME))
    figure.update_yaxes(axis("predicted time of a call", type="log", range=span, **LOG_TIME))
    return figure


def _marker(family: str, place: int) -> dict[str, object]:
    return {
        "color": family_colour(family), "size": 6, "opacity": 0.6 if place == 0 else 0.75,
        "symbol": SYMBOLS[place % len(SYMBOLS)] + ("" if place == 0 else "-open"),
    }  # fmt: skip


def _hover(part: FitPoints) -> list[str]:
    return [
        f"<b>{words}</b><br>measured {duration(measured)}, predicted {duration(predicted)} ({100 * error:+.1f}%)"
        for words, measured, predicted, error in zip(
            part.words(), part.measured_s, part.predicted_s, part.error, strict=True
        )
    ]


def distribution_figure(points: Sequence[FitPoints], noise: float) -> go.Figure:
    """Left: share of points within an error, a line a family. Right: signed errors of each fit as boxes."""
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.17, column_widths=[0.5, 0.5])
    for family in dict.fromkeys(p.fit.family for p in points):
        sizes = np.sort(np.concatenate([np.abs(p.error) for p in points if p.fit.family == family]))
        shares = np.linspace(0.0, 1.0, min(_CURVE_POINTS, len(sizes)))
        figure.add_scatter(
            x=100 * np.maximum(np.quantile(sizes, shares), _SMALLEST_ERROR), y=100 * shares, mode="lines", row=1,
            col=1, name=family_words(family), line={"color": family_colour(family), "width": 2},
            hovertemplate="%{y:.0f}% of points within %{x:.2g}%<extra>" + family_words(family) + "</extra>",
        )  # fmt: skip
    if noise > 0:
        figure.add_vline(x=100 * noise, row=1, col=1, line={"color": WARM, "width": 1.4, "dash": "dash"})
        figure.add_annotation(
            x=float(np.log10(100 * noise)), y=97, text="noise floor", showarrow=False, xanchor="right", row=1, col=1,
            font={"color": WARM, "size": 12},
        )  # fmt: skip
    for part in reversed(points):
        p5, low, middle, high, p95 = (100 * float(v) for v in np.quantile(part.error, (0.05, 0.25, 0.5, 0.75, 0.95)))
        figure.add_box(
            y=[fit_words(part.fit)], lowerfence=[p5], q1=[low], median=[middle], q3=[high], upperfence=[p95],
            orientation="h", row=1, col=2, showlegend=False, name=fit_words(part.fit), hoverinfo="x",
            line={"color": family_colour(part.fit.family), "width": 1.5},
        )  # fmt: skip
    most = max(2.0, *(float(np.log10(100 * np.abs(p.error).max() + 1)) for p in points))
    figure.add_vline(x=0, row=1, col=2, line={"color": FAINT, "width": 1})
    figure.update_xaxes(
        axis("size of the error", type="log", range=[-1.5, most], dtick=1, ticksuffix="%"), row=1, col=1
    )
    figure.update_yaxes(axis("share of points", range=[0, 101], ticksuffix="%"), row=1, col=1)
    figure.update_xaxes(axis("predicted / measured − 1", ticksuffix="%", nticks=8), row=1, col=2)
    figure.update_yaxes(axis("", showgrid=False), row=1, col=2)
    figure.update_layout(layout(max(360, 26 * len(points) + 130)))
    return figure


def _shown(error: float) -> float:
    return 100 * max(error, _SMALLEST_ERROR)
