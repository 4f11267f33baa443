"""Figures of a rebalancing study: GPU load over the mean in time, and the drift of one layer's experts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go

from simtool.planners.experts.rebalance_study import RebalanceStudy
from simtool.report.expert_figures import ratio_figure
from simtool.report.rebalance_rows import by_clock
from simtool.report.style import ACCENT, FAINT, SLATE, WARM, axis, layout

Floats = NDArray[np.float64]


def over_mean_figure(study: RebalanceStudy, numbers: Sequence[int]) -> go.Figure:
    """A line a schedule over the windows, with a mark where the cheapest one moves."""
    figure = go.Figure(layout=layout(340))
    clock = by_clock(study)
    lines = [
        (study.stay, FAINT),
        *([(clock, WARM)] if clock else []),
        (study.schedules[-2], SLATE),
        (study.best, ACCENT),
    ]
    for schedule, colour in lines:
        before = (0, *schedule.chosen)
        moved = [now != old for now, old in zip(schedule.chosen, before, strict=False)]
        figure.add_scatter(
            x=list(numbers),
            y=[round(study.over_mean(window, held), 4) for window, held in enumerate(schedule.chosen)],
            name=schedule.name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": [9 if one else 3 for one in moved], "color": colour},
            hovertemplate=f"{schedule.name}<br>window %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    figure.update_xaxes(axis("window", nticks=min(16, len(numbers))))
    figure.update_yaxes(axis("highest GPU load / mean"))
    return figure


def most_drifting(loads: Floats) -> int:
    """The layer whose shares of load vary most over the windows; loads: [windows, layers, experts]."""
    share = loads / loads.sum(axis=2, keepdims=True)
    return int(np.abs(share - share.mean(axis=0)).sum(axis=(0, 2)).argmax())


def drift_figure(study: RebalanceStudy, layer: int, numbers: Sequence[int]) -> go.Figure:
    """[windows, experts] of a layer over the window's mean."""
    loads = np.stack([window.loads[layer] for window in study.windows])
    return ratio_figure(loads, [f"window {number}" for number in numbers])
