"""Figures of where a step's time goes, and of SLO attainment against load."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from simtool.report.contents import LoadPoint, StepTime
from simtool.report.style import ACCENT, FAINT, FAMILY, SLATE, WARM, axis, layout
from simtool.report.wording import duration, number

_MAX_BARS = 14


def operator_figure(step: StepTime) -> go.Figure:
    """One bar an operator, longest first; the dark part is the roofline floor."""
    ordered = sorted(step.operators, key=lambda operator: -operator.seconds)
    shown = ordered[:_MAX_BARS][::-1]
    figure = go.Figure(layout=layout(max(220, 27 * len(shown) + 90), barmode="overlay", bargap=0.28))
    hover = [
        f"<b>{o.name}</b> ({o.family})<br>{duration(o.seconds)} a step, {100 * o.seconds / step.seconds:.1f}%"
        f"<br>roofline {duration(o.roofline_s)}: {100 * o.roofline_s / o.seconds if o.seconds else 0:.0f}% of the time"
        f"<br>{o.provenance}"
        for o in shown
    ]
    names = [o.name for o in shown]
    for label, values, opacity in (
        ("predicted", [o.seconds * 1e3 for o in shown], 0.45),
        ("roofline floor", [o.roofline_s * 1e3 for o in shown], 1.0),
    ):
        figure.add_bar(
            y=names, x=values, orientation="h", name=label, opacity=opacity, text=hover, textposition="none",
            hovertemplate="%{text}<extra></extra>", marker={"color": [FAMILY.get(o.family, SLATE) for o in shown]},
            showlegend=False,
        )  # fmt: skip
    figure.update_xaxes(axis("ms a step"))
    figure.update_yaxes(axis("", showgrid=False))
    return figure


def load_figure(points: Sequence[LoadPoint], unit: str, now: float, target: float) -> go.Figure:
    """Share of requests within the SLO, and p99 latencies, against the load in `unit`; `now` is the load asked for."""
    ordered = sorted(points, key=lambda point: point.load)
    loads = [point.load for point in ordered]
    with_slo = any(np.isfinite(point.attainment) for point in ordered)
    figure = make_subplots(rows=1, cols=2 if with_slo else 1, horizontal_spacing=0.09)
    if with_slo:
        figure.add_scatter(
            x=loads, y=[100 * point.attainment for point in ordered], mode="lines+markers", name="SLO attainment",
            line={"color": ACCENT, "width": 2}, row=1, col=1,
            hovertemplate="%{y:.1f}% at %{x:.3g} " + unit + "<extra></extra>",
        )  # fmt: skip
        figure.add_hline(y=100 * target, line={"color": WARM, "width": 1.2, "dash": "dash"}, row=1, col=1)
        figure.update_yaxes(axis("requests within the SLO, %", range=[0, 103]), row=1, col=1)
    column = 2 if with_slo else 1
    for name, key, colour in (("p99 TTFT", "p99_ttft_ms", SLATE), ("p99 TPOT", "p99_tpot_ms", FAINT)):
        figure.add_scatter(
            x=loads, y=[point.metrics.get(key, np.nan) for point in ordered], mode="lines+markers", name=name,
            line={"color": colour, "width": 2}, row=1, col=column,
            hovertemplate=f"{name} " + "%{y:.4g} ms at %{x:.3g} " + unit + "<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(axis("ms", type="log"), row=1, col=column)
    figure.update_xaxes(axis(unit, rangemode="tozero"))
    if np.isfinite(now):
        label = {"text": f"asked: {number(now)}", "font": {"size": 12, "color": FAINT}}
        figure.add_vline(x=now, line={"color": FAINT, "width": 1, "dash": "dot"}, annotation=label)
    figure.update_layout(layout(330))
    return figure
