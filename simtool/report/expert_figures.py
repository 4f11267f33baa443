"""Heat maps: layers × experts, and layers × GPUs before and after, as loads over the mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from simtool.report.style import ACCENT, WARM, axis, layout

Floats = NDArray[np.float64]
_LEAST_SPREAD = 0.05  # of the colour scale on either side of the mean
_MOST_OCTAVES = 4.0  # on either side; what lies beyond has the colour of the end
_ROW = 22  # pixels a layer


def expert_figure(loads: Floats, layers: Sequence[int]) -> go.Figure:
    """[layers, experts] over the layer's mean, on a logarithmic scale of colours."""
    return ratio_figure(loads, _names(layers))


def ratio_figure(loads: Floats, rows: Sequence[str]) -> go.Figure:
    """[rows, experts] over the row's mean, on a logarithmic scale of colours."""
    ratio = loads / loads.mean(axis=1, keepdims=True)
    low = float(ratio[ratio > 0].min())
    shade = np.log2(np.maximum(ratio, low))
    reach = min(_MOST_OCTAVES, max(1.0, float(np.abs(shade).max())))
    ticks = np.arange(-np.floor(reach), np.floor(reach) + 1)
    bar = {"tickvals": ticks.tolist(), "ticktext": [f"{2.0**tick:.3g}×" for tick in ticks], "thickness": 12}
    figure = go.Figure(_heat(shade, ratio, rows, "expert", reach, bar))
    figure.update_xaxes(axis("expert", showgrid=False))
    figure.update_yaxes(_row_axis(rows))
    figure.update_layout(layout(_height(rows)))
    return figure


def gpu_figure(before: Floats, after: Floats, layers: Sequence[int], name: str) -> go.Figure:
    """[layers, gpus] over the layer's mean, both on one scale of colours."""
    rows = _names(layers)
    ratios = [loads / loads.mean(axis=1, keepdims=True) for loads in (before, after)]
    reach = max(_LEAST_SPREAD, *(float(np.abs(ratio - 1).max()) for ratio in ratios))
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=(name, "planned"))
    bar = {"tickformat": "+.0%", "thickness": 12, "nticks": 7}
    for column, ratio in enumerate(ratios, 1):
        heat = _heat(ratio - 1, ratio, rows, "GPU", reach, bar if column == 2 else None)
        figure.add_trace(heat, row=1, col=column)
        figure.update_xaxes(axis("GPU", showgrid=False), row=1, col=column)
    figure.update_yaxes(_row_axis(rows))
    figure.update_layout(layout(_height(rows) + 24, margin={"l": 8, "r": 12, "t": 36, "b": 8}))
    return figure


def _heat(
    shade: Floats, ratio: Floats, rows: Sequence[str], what: str, reach: float, bar: dict[str, Any] | None
) -> go.Heatmap:
    return go.Heatmap(
        z=_short(shade),
        y=list(rows),
        customdata=_short(ratio),
        zmin=-reach,
        zmax=reach,
        colorscale=[[0.0, ACCENT], [0.5, "#ffffff"], [1.0, WARM]],
        showscale=bar is not None,
        colorbar=bar,
        xgap=0.5,
        ygap=1,
        hovertemplate="%{y}, " + what + " %{x}: %{customdata:.3f} × mean<extra></extra>",
    )


def _short(values: Floats) -> list[list[float]]:
    """Four decimals, so that the page stays small."""
    return [[round(value, 4) for value in row] for row in values.tolist()]


def _names(layers: Sequence[int]) -> list[str]:
    return [f"layer {layer}" for layer in layers]


def _row_axis(rows: Sequence[str]) -> dict[str, Any]:
    every = max(1, len(rows) // 30)
    return axis("", showgrid=False, autorange="reversed", tickvals=list(rows)[::every], type="category")


def _height(rows: Sequence[str]) -> int:
    return 110 + min(700, max(3, len(rows)) * _ROW)
