"""Two timelines, one time axis: simulated steps above measured ones, and the requests in flight of both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from simtool.metrics import Result
from simtool.report.style import ACCENT, WARM, axis, layout
from simtool.report.validation_figures import KINDS, kinds_of

Array = NDArray[np.float64]
MOST_SLABS = 3000  # of one run
_LEVELS = 500
_SLAB_PX = 15


def timelines_figure(predicted: Result, measured: Result) -> go.Figure | None:
    """None where the measurement does not say when anything happened."""
    both = (("simulated", predicted, ACCENT), ("measured", measured, WARM))
    stepped = all(len(run.steps.get("start_s", ())) for _, run, _ in both)
    if not stepped and not measured.sent_s.any():
        return None
    lanes = max(1, int(predicted.replica.max(initial=0)) + 1)
    rows = [0.3, 0.3, 0.4] if stepped else [1.0]
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=rows)
    if stepped:
        for row, (name, run, _) in enumerate(both, 1):
            _slabs(figure, run, row, legend=row == 1)
            title = f"{name}{' replica' if lanes > 1 else ''}"
            ticks = {"tickvals": list(range(lanes)), "range": [-0.6, lanes - 0.4], "showgrid": False}
            figure.update_yaxes(axis(title, showticklabels=lanes > 1, **ticks), row=row, col=1)
    last = len(rows)
    for name, run, colour in both:
        x, y = _in_flight(run)
        figure.add_scatter(
            x=x, y=y, mode="lines", name=f"requests in flight, {name}", row=last, col=1,
            line={"color": colour, "width": 1.8, "shape": "hv"}, hovertemplate="%{y} at %{x:.4g} s<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(axis("in flight", rangemode="tozero", nticks=5), row=last, col=1)
    figure.update_xaxes(axis(""))
    figure.update_xaxes(title={"text": "time, s"}, row=last, col=1)
    figure.update_layout(layout(230 + (2 * (40 + 26 * min(lanes, 8)) + 60 if stepped else 120)))
    return figure


def slabs(run: Result) -> tuple[Array, Array, Array, Array, bool]:
    """(start, end, replica, kind, whole) of runs of like steps that follow on each other; whole: all are there."""
    steps = run.steps
    order = np.lexsort((steps["start_s"], steps["replica"]))
    start, end, replica = (steps[name][order] for name in ("start_s", "end_s", "replica"))
    kind = kinds_of(steps["prefill_tokens"][order], steps["decode_requests"][order])
    wide = (end.max() - start.min()) / MOST_SLABS  # gaps below are not seen
    if len(start) <= MOST_SLABS:
        wide = -1.0
    fresh = np.ones(len(start), bool)
    fresh[1:] = (replica[1:] != replica[:-1]) | (kind[1:] != kind[:-1]) | (start[1:] - end[:-1] > wide)
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(start)) - 1
    whole = len(first) <= MOST_SLABS
    first, last = first[:MOST_SLABS], last[:MOST_SLABS]
    return start[first], end[last], replica[first], kind[first], whole


def _slabs(figure: go.Figure, run: Result, row: int, *, legend: bool) -> None:
    """Steps as thick lines, one trace a kind."""
    start, end, replica, kind, _ = slabs(run)
    for place, (name, colour) in enumerate(KINDS):
        mine = kind == place
        count = int(np.count_nonzero(mine))
        x, y = np.full(3 * count, np.nan), np.full(3 * count, np.nan)
        x[0::3], x[1::3] = start[mine], end[mine]
        y[0::3] = y[1::3] = replica[mine]
        figure.add_scatter(
            x=[None if np.isnan(v) else float(v) for v in x], y=[None if np.isnan(v) else float(v) for v in y],
            mode="lines", name=name, legendgroup=name, showlegend=legend and count > 0, row=row, col=1,
            line={"color": colour, "width": _SLAB_PX}, hovertemplate="%{x:.6g} s<extra>" + name + "</extra>",
        )  # fmt: skip


def _in_flight(run: Result) -> tuple[Array, Array]:
    """Requests sent and not finished, at evenly spread moments."""
    done = np.isfinite(run.finish_s)
    sent, finish = np.sort(run.sent_s[done]), np.sort(run.finish_s[done])
    at = np.linspace(0.0, float(finish[-1]) if len(finish) else 1.0, _LEVELS)
    return at, (np.searchsorted(sent, at, side="right") - np.searchsorted(finish, at, side="right")).astype(np.float64)
