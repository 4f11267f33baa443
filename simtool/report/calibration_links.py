"""Figures of what moves data and what shares the device: copies, collectives, interference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from simtool.hardware.collective_curves import Curve
from simtool.hardware.kernel_profile import Contention
from simtool.report.calibration_wording import mover_words
from simtool.report.style import CATEGORICAL, axis, layout
from simtool.report.wording import duration

# Alpha alone, so that text on it reads on light and dark ground.
COOL = [[0.0, "rgba(20,160,148,0.03)"], [1.0, "rgba(20,160,148,0.55)"]]
WARMING = [[0.0, "rgba(224,142,69,0.05)"], [1.0, "rgba(224,142,69,0.6)"]]
_SIZE_TICKS = (2**10, 2**14, 2**17, 2**20, 2**23, 2**27, 2**30, 2**33)
_SIZE_WORDS = ("1 KiB", "16 KiB", "128 KiB", "1 MiB", "8 MiB", "128 MiB", "1 GiB", "8 GiB")
_ACROSS = 3  # panels side by side


def curves_figure(curves: Sequence[Curve]) -> go.Figure:
    """GB/s (size over time) over the size: a colour a kind and library, a panel a number of ranks; dots are knots."""
    kinds = list(dict.fromkeys((curve.kind, curve.library) for curve in curves))
    counts = sorted({curve.ranks for curve in curves})
    across = min(len(counts), _ACROSS)
    rows = -(-len(counts) // across)
    titles = [f"{count} ranks" for count in counts] if max(counts) > 1 else None
    figure = make_subplots(
        rows=rows, cols=across, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.16,
        subplot_titles=titles,
    )  # fmt: skip
    named: set[tuple[str, str]] = set()
    for curve in curves:
        place, kind = counts.index(curve.ranks), (curve.kind, curve.library)
        colour = CATEGORICAL[kinds.index(kind) % len(CATEGORICAL)]
        several = len({library for _, library in kinds}) > 1
        name = mover_words(curve.kind) + (f" ({curve.library})" if several else "")
        cell = {"row": place // across + 1, "col": place % across + 1}
        _curve(figure, curve, name, colour, cell, first=kind not in named)
        named.add(kind)
    figure.update_xaxes(axis("bytes", type="log", tickvals=_SIZE_TICKS, ticktext=_SIZE_WORDS, tickangle=0))
    figure.update_yaxes(axis("", type="log", dtick=1))
    figure.update_yaxes(title={"text": "GB/s"}, col=1)
    figure.update_annotations(font={"size": 13})
    raised = {**layout(0)["legend"], "y": 1.02 if titles is None else 1.1}
    figure.update_layout(layout(330 * rows + 70, legend=raised))
    return figure


def _curve(figure: go.Figure, curve: Curve, name: str, colour: str, cell: dict[str, int], *, first: bool) -> None:
    """The line of one curve and its knots; only the `first` of a colour is in the legend."""
    dense = np.geomspace(curve.knot_bytes[0], curve.knot_bytes[-1], 100)
    figure.add_scatter(
        x=dense, y=dense / curve.seconds(dense) / 1e9, mode="lines", name=name, hoverinfo="skip", legendgroup=name,
        line={"color": colour, "width": 2}, showlegend=first, **cell,
    )  # fmt: skip
    knots_s = curve.seconds(curve.knot_bytes)
    figure.add_scatter(
        x=curve.knot_bytes, y=curve.knot_bytes / knots_s / 1e9, mode="markers", showlegend=False, legendgroup=name,
        marker={"color": colour, "size": 5}, text=[duration(float(t)) for t in knots_s],
        hovertemplate=name + "<br>%{x:,.0f} bytes in %{text}: %{y:.3g} GB/s<extra></extra>", **cell,
    )  # fmt: skip


def interference_figure(pairs: Sequence[Contention]) -> go.Figure:
    """Share of its lone speed that each row's workload keeps beside each column's (the mean of several)."""
    kept: dict[tuple[str, str], list[float]] = {}
    for pair in pairs:
        kept.setdefault((pair.first, pair.second), []).append(pair.first_keeps)
        kept.setdefault((pair.second, pair.first), []).append(pair.second_keeps)
    names = list(dict.fromkeys(name for pair in kept for name in pair))
    words = [mover_words(name) for name in names]
    lost = [[_lost(kept.get((row, column))) for column in names] for row in names]
    figure = go.Figure(layout=layout(90 + 52 * len(names)))
    figure.add_heatmap(
        x=words, y=words, z=lost, colorscale=WARMING, zmin=0, zmax=1, showscale=False, xgap=4, ygap=4,
        hoverongaps=False, hovertemplate="%{y} beside %{x} loses %{z:.0%} of its lone speed<extra></extra>",
    )  # fmt: skip
    for word, row in zip(words, lost, strict=True):
        for other, share in zip(words, row, strict=True):
            if share is not None:  # an annotation, since its colour follows the reader's theme
                said = f"{100 * (1 - share):.0f}%"
                figure.add_annotation(x=other, y=word, text=said, showarrow=False, font={"size": 15})
    figure.update_xaxes(axis("beside", showgrid=False, showline=False, side="top"))
    figure.update_yaxes(axis("", showgrid=False, showline=False, autorange="reversed"))
    return figure


def _lost(kept: list[float] | None) -> float | None:
    return round(1 - float(np.mean(kept)), 4) if kept else None
