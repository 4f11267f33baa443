"""Figures of expert offload: hits over time and by layer, waiting, use of the link, memory against speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go

from simtool.offload_use import STALL_CAUSES, OffloadUse
from simtool.report.style import ACCENT, CATEGORICAL, SLATE, WARM, axis, layout
from simtool.report.wording import number
from simtool.units import GB

F8 = NDArray[np.float64]
MOST_BINS = 120
_CAUSE_COLOURS = ("#d0605e", WARM, SLATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadBins:
    """Equal spans of a run. at_s: float64[bins], their middles. hit_rate, link_share: float64[bins], NaN where nothing
    ran. stalled: float64[bins, causes], shares of the steps' time, a step counted where its middle is.
    """

    at_s: F8
    hit_rate: F8
    link_share: F8
    stalled: F8


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedPoint:
    """One way to offload. name: what the points of one line share; label: of this one; fits: on the device."""

    name: str
    label: str
    hbm_bytes: float
    tokens_per_s: float
    fits: bool = True


def offload_bins(use: OffloadUse, most: int = MOST_BINS) -> OffloadBins:
    """The run in at most `most` spans, fewer where it has few steps."""
    count = max(1, min(most, len(use.start_s) // 4))
    edges = np.linspace(use.start_s.min(initial=0.0), use.end_s.max(initial=0.0), count + 1)
    place = np.clip(np.searchsorted(edges, (use.start_s + use.end_s) / 2, side="right") - 1, 0, count - 1)

    def summed(values: NDArray[np.floating] | NDArray[np.integer]) -> F8:
        return np.asarray(np.bincount(place, weights=values, minlength=count), np.float64)

    busy = summed(use.end_s - use.start_s)
    with np.errstate(invalid="ignore", divide="ignore"):
        return OffloadBins(
            at_s=(edges[1:] + edges[:-1]) / 2,
            hit_rate=summed(use.hits) / summed(use.needed),
            link_share=summed(use.link_busy_s) / busy,
            stalled=np.stack([summed(column) / busy for column in use.stall_s.T], axis=1),
        )


def hits_figure(bins: OffloadBins) -> go.Figure:
    """Hit rate and use of the link over time."""
    figure = go.Figure(layout=layout(300))
    for name, values, colour in (("hit rate", bins.hit_rate, ACCENT), ("link busy", bins.link_share, WARM)):
        figure.add_scatter(
            x=_short(bins.at_s), y=_short(values), name=name, mode="lines", line={"color": colour, "width": 2},
            hovertemplate=name + " %{y:.1%} at %{x:.4g} s<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(axis("time, s"))
    figure.update_yaxes(axis("", tickformat=".0%", range=[0, 1.02]))
    return figure


def stalls_figure(bins: OffloadBins) -> go.Figure:
    """Share of the steps' time that waits, by cause, one on the other."""
    figure = go.Figure(layout=layout(300, barmode="stack"))
    width = 1.02 * float(np.diff(bins.at_s).mean()) if len(bins.at_s) > 1 else None  # no gap between bars
    for name, values, colour in zip(STALL_CAUSES, bins.stalled.T, _CAUSE_COLOURS, strict=True):
        figure.add_bar(
            x=_short(bins.at_s), y=_short(values), name=name, width=width,
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=name + " %{y:.1%} at %{x:.4g} s<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(axis("time, s"))
    figure.update_yaxes(axis("of the steps' time", tickformat=".0%", rangemode="tozero"))
    return figure


def layers_figure(use: OffloadUse, layers: Sequence[int]) -> go.Figure:
    """Hit rate of each layer over the whole run; layers: their numbers in the model."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = use.layer_hits / use.layer_needed
    figure = go.Figure(layout=layout(260))
    figure.add_bar(
        x=list(layers), y=_short(rate), marker={"color": ACCENT}, hovertemplate="layer %{x}: %{y:.1%}<extra></extra>"
    )
    figure.update_xaxes(axis("layer", nticks=min(16, len(layers))))
    figure.update_yaxes(axis("hit rate", tickformat=".0%", range=[0, 1.02]))
    return figure


def speed_figure(points: Sequence[SpeedPoint]) -> go.Figure:
    """Output tokens a second against GPU memory for experts, a line a name; hollow where it does not fit."""
    figure = go.Figure(layout=layout(380))
    for place, name in enumerate(dict.fromkeys(point.name for point in points)):
        mine = sorted((point for point in points if point.name == name), key=lambda point: point.hbm_bytes)
        figure.add_scatter(
            x=[round(point.hbm_bytes / GB, 4) for point in mine],
            y=[float(f"{point.tokens_per_s:.5g}") for point in mine],
            text=[f"{point.label}: {number(point.tokens_per_s)} tok/s" for point in mine],
            name=name,
            mode="lines+markers",
            line={"color": CATEGORICAL[place % len(CATEGORICAL)], "width": 2},
            marker={"size": 8, "symbol": ["circle" if point.fits else "circle-open" for point in mine]},
            hovertemplate="<b>" + name + "</b><br>%{text} in %{x:.3g} GB<extra></extra>",
        )
    figure.update_xaxes(axis("GPU memory for experts, GB", rangemode="tozero"))
    figure.update_yaxes(axis("output tokens/s", rangemode="tozero"))
    return figure


def _short(values: F8) -> list[float | None]:
    """Five digits, so that the page stays small; None for NaN."""
    return [None if np.isnan(value) else float(f"{value:.5g}") for value in values.tolist()]
