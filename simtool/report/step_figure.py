"""A step drawn: tasks on their streams, the critical path marked, and how full the resources are underneath."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from simtool.report.style import CATEGORICAL, FAINT, FAMILY, axis, layout
from simtool.simulator.tasks.lanes import lanes_of
from simtool.simulator.tasks.timeline import Timeline

Array = NDArray[np.float64]
Places = NDArray[np.int64]
MOST_SLABS = 3000
MOST_LANES = 24
MOST_RESOURCES = 6
_PIXELS = 1500  # gaps below one are not seen
_BINS = 400
_CRITICAL = "#d0605e"
_UNITS = ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (float("inf"), 1.0, "s"))


def step_figure(timeline: Timeline) -> go.Figure:
    """Streams × time, and use of the busiest resources where the timeline was recorded."""
    names, lane = lanes_of(timeline)
    shown = min(len(names), MOST_LANES)
    recorded = len(timeline.segments) > 0 and timeline.makespan_s > 0
    factor, unit = time_unit(timeline.makespan_s)
    height = 70 + 30 * max(shown, 2)
    rows = [height, 190] if recorded else [height]
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=36 / sum(rows), row_heights=rows)
    _tasks(figure, timeline, lane, factor)
    _critical(figure, timeline, lane, factor)
    ticks = {"tickvals": list(range(shown)), "ticktext": [name[:28] for name in names[:shown]]}
    figure.update_yaxes(axis("", range=[shown - 0.4, -0.6], showgrid=False, **ticks), row=1, col=1)
    if recorded:
        _usage(figure, timeline, factor)
        figure.update_yaxes(axis("in use, %", range=[0, 104], nticks=5), row=2, col=1)
    figure.update_xaxes(axis(""))
    figure.update_xaxes(title={"text": f"time, {unit}"}, row=len(rows), col=1)
    figure.update_layout(layout(sum(rows) + 70))
    return figure


def time_unit(seconds: float) -> tuple[float, str]:
    """(units a second, name) of the axis."""
    return next((factor, unit) for limit, factor, unit in _UNITS if seconds < limit)


def family_colours(families: list[str]) -> dict[str, str]:
    """Colour of each family: that of the other figures where it has one."""
    spare = [colour for colour in CATEGORICAL if colour != _CRITICAL]
    unknown = [name for name in families if name and name not in FAMILY]
    own = {name: spare[place % len(spare)] for place, name in enumerate(unknown)}
    return {name: FAMILY.get(name) or own.get(name, FAINT) for name in families}


def slabs(timeline: Timeline, tasks: Places, lane: Places) -> tuple[Array, Array, Places, Places, Places]:
    """(start, end, lane, first task, how many tasks) of neighbours of a lane, joined where no gap is to be seen.

    Where there are still too many, the longest stay.
    """
    tasks = tasks[np.lexsort((timeline.start_s[tasks], lane[tasks]))]
    start, end, place = timeline.start_s[tasks], timeline.end_s[tasks], lane[tasks]
    gap = timeline.makespan_s / _PIXELS if len(tasks) > MOST_SLABS else -1.0
    fresh = np.ones(len(tasks), bool)
    fresh[1:] = (place[1:] != place[:-1]) | (start[1:] - end[:-1] > gap)
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(tasks)) - 1 if len(tasks) else first
    count = last - first + 1
    if len(first) > MOST_SLABS:
        longest = np.sort(np.argsort(start[first] - end[last], kind="stable")[:MOST_SLABS])
        first, last, count = first[longest], last[longest], count[longest]
    return start[first], end[last], place[first], tasks[first], count


def _tasks(figure: go.Figure, timeline: Timeline, lane: Places, factor: float) -> None:
    """Thick lines, one trace a family."""
    each = [task.family for task in timeline.graph.tasks]
    families = list(dict.fromkeys(each))
    which = np.array([families.index(name) for name in each], np.int64)
    colours = family_colours(families)
    for place, name in enumerate(families):
        mine = np.flatnonzero((which == place) & (lane < MOST_LANES))
        start, end, row, first, count = slabs(timeline, mine, lane)
        labels = [_label(timeline, *pair) for pair in zip(first.tolist(), count.tolist(), strict=True)]
        figure.add_scatter(
            x=broken(start * factor, end * factor), y=broken(row, row), mode="lines", row=1, col=1,
            name=name or "other", text=[label for label in labels for _ in range(3)],
            line={"color": colours[name], "width": 17, "simplify": False},
            hovertemplate="%{text}, %{x:.6g}<extra>" + (name or "other") + "</extra>",
        )  # fmt: skip


def _label(timeline: Timeline, task: int, count: int) -> str:
    return timeline.graph.tasks[task].name[:40] + (f" and {count - 1} more" if count > 1 else "")


def _critical(figure: go.Figure, timeline: Timeline, lane: Places, factor: float) -> None:
    """A line under the tasks that the end hangs on."""
    path = np.array(timeline.critical_path(), np.int64)
    start, end, row, _, _ = slabs(timeline, path[lane[path] < MOST_LANES], lane)
    figure.add_scatter(
        x=broken(start * factor, end * factor), y=broken(row + 0.42, row + 0.42), mode="lines", name="critical path",
        line={"color": _CRITICAL, "width": 4, "simplify": False}, hoverinfo="skip", row=1, col=1,
    )  # fmt: skip


def broken(start: NDArray[Any], end: NDArray[Any]) -> list[float | None]:
    """start, end, nothing, start, … to nine digits: separate pieces of one line."""
    found: list[float | None] = []
    for one, other in zip(start.tolist(), end.tolist(), strict=True):
        found += [float(f"{one:.9g}"), float(f"{other:.9g}"), None]
    return found


def _usage(figure: go.Figure, timeline: Timeline, factor: float) -> None:
    """Share of the rate, averaged over bins, of the resources that are used most."""
    edges = np.linspace(0.0, timeline.makespan_s, _BINS + 1)
    shares = {
        one.name: 100 * timeline.mean_usage(one.name, edges) / one.rate
        for one in timeline.graph.resources
        if one.rate > 0
    }
    ranked = sorted(shares, key=lambda name: -float(shares[name].mean()))[:MOST_RESOURCES]
    for place, name in enumerate(name for name in shares if name in ranked):
        y = np.append(shares[name], shares[name][-1])
        figure.add_scatter(
            x=[float(f"{x:.6g}") for x in edges * factor], y=[float(f"{v:.4g}") for v in y], mode="lines",
            name=f"{name[:40]} in use",
            line={"color": CATEGORICAL[place % len(CATEGORICAL)], "width": 1.6, "shape": "hv"}, row=2, col=1,
            hovertemplate="%{y:.3g}% at %{x:.4g}<extra>" + name[:40] + "</extra>",
        )  # fmt: skip
