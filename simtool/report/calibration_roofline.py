"""Roofline figures: rates of points, or of fitted laws, below the device's ceilings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go

from simtool.hardware.kernel_profile import FamilyFit, KernelProfile
from simtool.hardware.roofline import Work
from simtool.report.calibration_figures import DASHES, SYMBOLS
from simtool.report.calibration_points import FitPoints
from simtool.report.calibration_wording import family_colour, fit_words, percent, rate
from simtool.report.style import FAINT, axis, layout

Array = NDArray[np.float64]
MEMORY_ONLY = frozenset({"elementwise", "embedding", "sampling"})  # no FLOPs: they have a figure of their own
_LARGE_FLOPS = 1e18  # a call so large that its launch does not count
_INTENSITIES = (0.5, 2e4)  # FLOP/byte, where there are no points
_SIZES_BYTES = (1e3, 1e10)
_SLOWEST = 1e-5  # of the highest ceiling: what is slower is all launch, and lies under the axis
BELOW = {"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top", "bgcolor": "rgba(0,0,0,0)"}


def roofline_figure(profile: KernelProfile, points: Sequence[FitPoints]) -> go.Figure | None:
    """FLOP/s over FLOP/byte: the points (without any the laws' own best), and the ceilings. None: nothing computes."""
    fits = [fit for fit in profile.fits.values() if fit.family not in MEMORY_ONLY]
    shown = [part for part in points if part.fit.family not in MEMORY_ONLY]
    if not fits:
        return None
    figure = go.Figure(layout=layout(540, legend=BELOW, margin={"l": 8, "r": 104, "t": 30, "b": 8}))
    density = [part.flops / part.hbm_bytes for part in shown]
    low = min((float(d.min()) for d in density), default=_INTENSITIES[0]) / 1.5
    high = max((float(d.max()) for d in density), default=_INTENSITIES[1]) * 1.5
    grid = np.geomspace(low, high, 120)
    _ceilings(figure, fits, grid)
    for place, part in enumerate(shown):
        _points(figure, part, _place(shown, place))
    if not shown:
        for place, fit in enumerate(fits):
            _law(figure, fit, grid, sum(other.family == fit.family for other in fits[:place]))
    figure.update_xaxes(
        axis("FLOP / byte of memory traffic", type="log", dtick=1, range=np.log10([low, high]).tolist())
    )
    top = max(fit.peak_flops for fit in fits)
    slowest = min((float((part.flops / part.measured_s).min()) for part in shown), default=top * 1e-3)
    span = np.log10([max(slowest / 1.5, _SLOWEST * top), top * 2]).tolist()
    figure.update_yaxes(axis("FLOP/s", type="log", dtick=1, tickformat="~s", range=span))
    return figure


def _place(parts: Sequence[FitPoints], place: int) -> int:
    """Which of its family's fits this one is."""
    return sum(other.fit.family == parts[place].fit.family for other in parts[:place])


def _ceilings(figure: go.Figure, fits: Sequence[FamilyFit], grid: Array) -> None:
    """Memory's slope and one flat line a peak, each named where it is flat."""
    peaks = sorted({fit.peak_flops for fit in fits}, reverse=True)
    bandwidth = fits[0].bandwidth_bytes_per_s
    for place, peak in enumerate(peaks):
        corner = peak / bandwidth
        at = np.unique(np.concatenate([grid, [np.clip(corner, grid[0], grid[-1])]]))
        figure.add_scatter(
            x=at, y=np.minimum(at * bandwidth, peak), mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": FAINT, "width": 1.6},
        )  # fmt: skip
        figure.add_annotation(
            x=1, xref="paper", y=float(np.log10(peak)), text=rate(peak, "FLOP/s"), showarrow=False, xanchor="left",
            yanchor="bottom" if place == 0 and len(peaks) > 1 else "middle", font={"size": 12}, xshift=6,
        )  # fmt: skip
    left = float(grid[0]) * 1.15
    figure.add_annotation(
        x=float(np.log10(left)), y=float(np.log10(8 * left * bandwidth)), text=f"memory {rate(bandwidth, 'B/s')}",
        showarrow=False, xanchor="left", yanchor="bottom", font={"size": 12},
    )  # fmt: skip


def _points(figure: go.Figure, part: FitPoints, place: int) -> None:
    speed, moved = part.flops / part.measured_s, part.hbm_bytes / part.measured_s
    fit = part.fit
    hover = [
        f"<b>{words}</b><br>{rate(flops, 'FLOP/s')}, {percent(flops / fit.peak_flops)} of the ceiling<br>"
        f"{rate(traffic, 'B/s')}, {percent(traffic / fit.bandwidth_bytes_per_s)} of the bandwidth"
        for words, flops, traffic in zip(part.words(), speed, moved, strict=True)
    ]
    figure.add_scatter(
        x=part.flops / part.hbm_bytes, y=speed, mode="markers", name=fit_words(fit), text=hover,
        hovertemplate="%{text}<extra></extra>",
        marker={"color": family_colour(fit.family), "size": 5.5, "opacity": 0.65,
                "symbol": SYMBOLS[place % len(SYMBOLS)] + ("-open" if place else "")},
    )  # fmt: skip


def _law(figure: go.Figure, fit: FamilyFit, grid: Array, place: int) -> None:
    """The most that the law gives at each intensity: that of a very large call."""
    work = Work(flops=np.full(len(grid), _LARGE_FLOPS), hbm_bytes=_LARGE_FLOPS / grid)
    speed = _LARGE_FLOPS / fit.law.seconds(work, fit.peak_flops, fit.bandwidth_bytes_per_s)
    figure.add_scatter(
        x=grid, y=speed, mode="lines", name=fit_words(fit),
        line={"color": family_colour(fit.family), "width": 2, "dash": DASHES[place % len(DASHES)]},
        hovertemplate=f"{fit_words(fit)}: " + "%{y:.3s}FLOP/s at %{x:.3g} FLOP/byte<extra></extra>",
    )  # fmt: skip


def bandwidth_figure(profile: KernelProfile, points: Sequence[FitPoints]) -> go.Figure | None:
    """Bytes/s over bytes of the memory-bound kernels: points and law, below the bandwidth. None: no such fit."""
    fits = {key: fit for key, fit in profile.fits.items() if fit.family in MEMORY_ONLY}
    if not fits:
        return None
    found = {(part.fit.family, part.fit.dtype): part for part in points}
    figure = go.Figure(layout=layout(360, showlegend=True))
    smallest = min((float(found[k].hbm_bytes.min()) for k in fits if k in found), default=_SIZES_BYTES[0])
    largest = max((float(found[k].hbm_bytes.max()) for k in fits if k in found), default=_SIZES_BYTES[1])
    sizes = np.geomspace(smallest / 1.5, largest * 1.5, 120)
    for key, fit in fits.items():
        if key in found:
            _points_by_size(figure, found[key])
        bandwidth = sizes / fit.law.seconds(
            Work(flops=0 * sizes, hbm_bytes=sizes), fit.peak_flops, fit.bandwidth_bytes_per_s
        )
        figure.add_scatter(
            x=sizes, y=bandwidth, mode="lines", name=fit_words(fit), showlegend=key not in found, hoverinfo="skip",
            line={"color": family_colour(fit.family), "width": 1.6},
        )  # fmt: skip
    ceiling = next(iter(fits.values())).bandwidth_bytes_per_s
    figure.add_hline(y=ceiling, line={"color": FAINT, "width": 1.6})
    figure.add_annotation(
        x=0.01, xref="paper", y=float(np.log10(ceiling)), text=f"memory {rate(ceiling, 'B/s')}", showarrow=False,
        xanchor="left", yanchor="bottom", font={"size": 12},
    )  # fmt: skip
    figure.update_xaxes(axis("bytes moved by the call", type="log", dtick=1, tickformat="~s", ticksuffix="B"))
    figure.update_yaxes(axis("bytes/s", type="log", dtick=1, tickformat="~s", ticksuffix="B/s"))
    return figure


def _points_by_size(figure: go.Figure, part: FitPoints) -> None:
    figure.add_scatter(
        x=part.hbm_bytes, y=part.hbm_bytes / part.measured_s, mode="markers", name=fit_words(part.fit),
        text=part.words(), hovertemplate="<b>%{text}</b><br>%{y:.3s}B/s<extra></extra>",
        marker={"color": family_colour(part.fit.family), "size": 6, "opacity": 0.65},
    )  # fmt: skip
