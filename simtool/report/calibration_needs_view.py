"""Where more points would help, drawn: maps of the deviation, and the table of spots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go

from simtool.report.calibration_figures import ROOM_ABOVE
from simtool.report.calibration_links import COOL
from simtool.report.calibration_needs import Needs
from simtool.report.calibration_points import dims_text
from simtool.report.calibration_tables import scrolled
from simtool.report.calibration_wording import family_words, percent
from simtool.report.html_tables import table
from simtool.report.style import WARM, axis, layout

Array = NDArray[np.float64]
_BINS = 16
_SPOTS = 10


def needs_figure(needs: Needs) -> go.Figure | None:
    """Mean deviation over the two axes of the family's map, measured points on top; None for a family without one."""
    if needs.axes is None:
        return None
    (x_name, y_name), x, y, measured_x, measured_y = needs.axes
    edges = [_edges(values) for values in (np.append(x, measured_x), np.append(y, measured_y))]
    share = np.expm1(needs.deviation)
    total, _, _ = np.histogram2d(x, y, bins=edges, weights=share)
    count, _, _ = np.histogram2d(x, y, bins=edges)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    z = [[None if np.isnan(v) else round(100 * float(v), 2) for v in row] for row in mean.T]
    figure = go.Figure(layout=layout(350, showlegend=False, margin=ROOM_ABOVE))
    figure.add_heatmap(
        x=edges[0].tolist(), y=edges[1].tolist(), z=z, colorscale=COOL, hoverongaps=False, zmin=0,
        zmax=100 * float(np.nanmax(mean)),
        hovertemplate=f"{x_name} %{{x:,.0f}}, {y_name} %{{y:.3s}}<br>± %{{z:.2g}}%<extra></extra>",
        colorbar={"title": {"text": "± %", "side": "top"}, "thickness": 10, "outlinewidth": 0, "len": 0.9},
    )  # fmt: skip
    figure.add_scatter(
        x=measured_x, y=measured_y, mode="markers", hoverinfo="skip",
        marker={"color": WARM, "size": 3.5, "opacity": 0.6},
    )  # fmt: skip
    for update, name, ends in ((figure.update_xaxes, x_name, edges[0]), (figure.update_yaxes, y_name, edges[1])):
        span = np.log10([ends[0], ends[-1]])
        ticks = {"dtick": 1} if span[1] - span[0] > 1 else {"nticks": 4}
        update(axis(name, type="log", showgrid=False, tickformat="~s", range=span.tolist(), **ticks))
    return figure


def _edges(values: Array) -> Array:
    """Bin edges: between the values where they are few, else equal bins in log."""
    distinct = np.unique(values)
    if len(distinct) > _BINS:
        return np.geomspace(distinct[0] / 1.1, distinct[-1] * 1.1, _BINS + 1)
    if len(distinct) == 1:
        return np.array([distinct[0] / 2, distinct[0] * 2])
    middles = np.sqrt(distinct[1:] * distinct[:-1])
    return np.concatenate([[distinct[0] ** 2 / middles[0]], middles, [distinct[-1] ** 2 / middles[-1]]])


def spots_table(every: Sequence[Needs]) -> str:
    """The widest spots of all fits, with the deviation that is usual in the box of that fit."""
    usual = {id(needs.fit): float(np.median(needs.deviation)) for needs in every}
    spots = sorted((spot for needs in every for spot in needs.spots), key=lambda spot: -spot.deviation)[:_SPOTS]
    rows = [
        (
            family_words(spot.fit.family),
            spot.fit.dtype,
            dims_text(spot.dims),
            f"± {percent(float(np.expm1(spot.deviation)))}",
            f"± {percent(float(np.expm1(usual[id(spot.fit)])))}",
        )
        for spot in spots
    ]
    heads = ("operator", "dtype", "measure here", "deviation there", "usual for this fit")
    return scrolled(table(heads, rows, [""] * len(rows), (0, 1, 2)))
